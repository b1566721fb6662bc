"""`python -m cluster metrics RUN`: what Prometheus gets of a run directory, in whatever state its files are."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.cli.app import main
from cluster.observe.export.serve import serve_metrics
from protocol.metrics import CATALOGUE
from tests.paths import ROOT
from tests.unit.cluster.observe.run_files import plan_at, write_run

Series = dict[tuple[str, ...], float]


def scrape(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def series_of(text: str) -> Series:
    """By name and label values in the order of the labels' names."""
    return {
        (s.name, *(value for _, value in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def served(path: Path, said: list[str]) -> Series:
    with serve_metrics(path, 0, said.append) as address:
        return series_of(scrape(address))


def test_the_newest_values_of_a_run_are_served_under_rays_names(tmp_path: Path) -> None:
    said: list[str] = []
    write_run(tmp_path / "a")
    got = served(tmp_path / "a", said)
    assert said == []
    of = "ray_advgame_"
    assert got[of + "step", "attacker", "learner-attacker-0", "a"] == 4
    assert got[of + "loss", "attacker", "learner-attacker-0", "a"] == 0.5
    steps = {key[1:3]: n for key, n in got.items() if key[0] == of + "learner_steps_total"}
    assert steps == {("taken", "attacker"): 4, ("taken", "defender"): 3, ("empty", "defender"): 1}
    assert got[of + "step_seconds_sum", "attacker", "learner-attacker-0", "a"] == 8.0
    assert got[of + "step_seconds_bucket", "1.0", "attacker", "learner-attacker-0", "a"] == 0
    assert got[of + "step_seconds_bucket", "2.5", "attacker", "learner-attacker-0", "a"] == 4
    assert got[of + "step_seconds_count", "attacker", "learner-attacker-0", "a"] == 4
    assert got[of + "games_total", "finished", "replay-0", "a"] == 32
    assert got[of + "attacks_total", "harmful", "replay-0", "a", "malformed"] == 2
    assert got[of + "reward", "benign", "defender", "replay-0", "a"] == 7.5
    assert (of + "reward", "benign", "attacker", "replay-0", "a") not in got, "not known yet"
    assert got[of + "worker_version", "defender", "publisher-0", "a", "defender-0"] == 2
    assert got[of + "heldout_ratio", "driver-0", "a", "attack_success"] == 0.25, "not the one of the trained attacker"
    assert (of + "heldout_ratio", "driver-0", "a", "benign_compliance") not in got
    assert got[of + "phase", "busy", "judge-0", "a"] == 1 and got[of + "phase", "ready", "judge-0", "a"] == 0
    assert got[of + "judge_failure_ratio", "replay-0", "a"] == 0.1
    assert not any("staleness_versions_" in key[0] and "bound" not in key[0] for key in got), "only its mean is known"


def test_every_name_type_and_help_is_the_catalogues(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    with serve_metrics(tmp_path / "a", 0, print) as address:
        text = scrape(address)
    known = {"ray_" + metric.name: metric for metric in CATALOGUE}
    lines = [line.split(" ", 3) for line in text.splitlines() if line.startswith("# ")]
    assert len(lines) > 70
    for _, what, name, said in lines:
        if not name.startswith("advgame_exporter_"):
            assert said == (known[name].help if what == "HELP" else known[name].kind)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's package prometheus) is not installed")
def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    with serve_metrics(tmp_path / "a", 0, print) as address:
        text = scrape(address)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_missing_or_half_written_file_is_said_once_counted_and_left_out(tmp_path: Path) -> None:
    plan, said = plan_at(tmp_path / "a"), list[str]()
    unread = "advgame_exporter_unread_total"
    with serve_metrics(tmp_path / "a", 0, said.append) as address:
        for n in (1, 2):
            got = series_of(scrape(address))
            missing = {key[1]: value for key, value in got.items() if key[0] == unread}
            assert missing == {"metrics.parquet": n, "moment.json": n} and set(got) == {
                (unread, file, "missing", "a") for file in missing
            }
        assert len(said) == 2 and "moment.json is not there (yet)" in said[1]
        write_run(tmp_path / "a")
        whole = series_of(scrape(address))
        assert whole["ray_advgame_step", "attacker", "learner-attacker-0", "a"] == 4
        assert whole["advgame_exporter_newest_timestamp_seconds", "a"] > 1e9
        for file in (plan.run_dir.metrics, plan.run_dir.moment):
            file.write_bytes(file.read_bytes()[:-30])
        for n in (1, 2):
            got = series_of(scrape(address))
            assert {key[1:3]: value for key, value in got.items() if key[0] == unread and key[2] == "broken"} == {
                ("metrics.parquet", "broken"): n,
                ("moment.json", "broken"): n,
            }
            assert not any(key[0].startswith("ray_") for key in got)
    assert len(said) == 4 and said[3].startswith("moment.json cannot be read (JSONDecodeError)")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"time": 1}',
        '{"time": 1, "samples": 7}',
        '{"time": "now", "samples": []}',
    ],
)
def test_a_moment_of_another_shape_breaks_no_scrape(text: str, tmp_path: Path) -> None:
    plan, said = write_run(tmp_path / "a"), list[str]()
    plan.run_dir.moment.write_text(text)
    assert served(tmp_path / "a", said)["ray_advgame_step", "attacker", "learner-attacker-0", "a"] == 4
    assert len(said) == 1 and said[0].startswith("moment.json cannot be read")


GOOD: dict[str, object] = {"metric": "advgame_step", "role": "x", "labels": {"player": "attacker"}, "value": 1}


@pytest.mark.parametrize(
    "sample",
    [
        {},
        7,
        GOOD | {"labels": {"nobody": "x"}},
        GOOD | {"labels": {"player": "judge"}},
        GOOD | {"labels": {"player": 7}},
        GOOD | {"labels": 7},
        GOOD | {"role": None},
        GOOD | {"value": "much"},
        GOOD | {"metric": ["advgame_step"]},
    ],
)
def test_of_a_moment_one_sample_that_the_catalogue_does_not_take_is_left_out_and_no_other(
    sample: object, tmp_path: Path
) -> None:
    plan, said = write_run(tmp_path / "a"), list[str]()
    whole = json.loads(plan.run_dir.moment.read_text())
    with serve_metrics(tmp_path / "a", 0, said.append) as address:
        before = series_of(scrape(address))
        assert {key: n for key, n in before.items() if "left_out" in key[0]} == {
            ("advgame_exporter_left_out_entries", file, "a"): 0 for file in ("metrics.parquet", "moment.json")
        }
        left_out = "advgame_exporter_left_out_entries", "moment.json", "a"
        for n in (1, 2):
            plan.run_dir.moment.write_text(json.dumps(whole | {"samples": [*[sample] * n, *whole["samples"]]}))
            assert series_of(scrape(address)) == before | {left_out: n}
    assert len(said) == 1 and said[0].startswith("moment.json: ") and "entries are left out" in said[0]


def test_of_the_steps_one_row_of_nobody_is_left_out_and_no_other(tmp_path: Path) -> None:
    plan, said = write_run(tmp_path / "a"), list[str]()
    rows = pq.read_table(plan.run_dir.metrics).to_pylist()
    pq.write_table(pa.Table.from_pylist([rows[0] | {"player": "umpire"}, *rows]), plan.run_dir.metrics)
    got = served(tmp_path / "a", said)
    assert got["advgame_exporter_left_out_entries", "metrics.parquet", "a"] == 1
    assert got["ray_advgame_step", "attacker", "learner-attacker-0", "a"] == 4
    assert said == ["metrics.parquet: 1 entries are left out, for this version's catalogue does not take them"]


def test_series_that_this_catalogue_does_not_know_are_left_out(tmp_path: Path) -> None:
    plan, said = write_run(tmp_path / "a"), list[str]()
    plan.run_dir.moment.write_text(plan.run_dir.moment.read_text().replace("advgame_judge_alarm", "advgame_gone"))
    got = served(tmp_path / "a", said)
    assert said == [] and not any("alarm" in key[0] or "gone" in key[0] for key in got)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    monkeypatch.setattr(sys, "argv", ["cluster", *args])
    with pytest.raises(SystemExit) as e:
        main()
    error = capsys.readouterr().err
    assert e.value.code == 2 and error.count("\n") == 1
    return error


def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has no recipe.yaml" in run(capsys, monkeypatch, "metrics", str(tmp_path))
    plan_at(tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = run(capsys, monkeypatch, "metrics", str(tmp_path / "a"), "--port", str(port))
    assert error == f"advgame: --port: {port} is taken on 127.0.0.1; pick another one, or 0 for any that is free\n"


def test_ctrl_c_ends_it_and_only_this_machine_is_served(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    command = [sys.executable, "-m", "cluster", "metrics", str(tmp_path / "a"), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            address = line.split()[1]
            assert address.startswith("http://127.0.0.1:") and "ray_advgame_step" in scrape(address)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert process.stderr.read() == "ended\n"
        finally:
            process.kill()
