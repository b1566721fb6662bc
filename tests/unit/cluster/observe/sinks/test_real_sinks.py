"""Each sink with its real package, without a network: what was written is read back, by that package where it can."""

import importlib.util
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.observe.sinks.outlet import Outlet, SinkCounts
from cluster.observe.sinks.sink import Record, RunFacts
from cluster.observe.sinks.sinks import make_sinks
from protocol.recipe import SinksConfig
from tests.paths import ROOT

RECORDS = [
    Record("attacker", 1, 1000.0, {"attacker/loss": 0.75, "attacker/reward/harmful": 4.5}),
    Record("attacker", 2, 1001.0, {"attacker/loss": 0.5}),
    Record("run", 2, 1002.0, {"run/attacks_total/ok/harmful": 7.0}),
    Record("heldout", 2, 1003.0, {"heldout/ratio/attack_success": 0.25, "heldout/version/defender": 2.0}),
]
SETTINGS = {"game.attacks": 2, "mode": "default", "learners.attacker.lr": 1e-6}


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"the package {module} is not installed")


def write(config: dict[str, Any], folder: Path, records: list[Record], resumed: bool = False) -> None:
    """All of a run's way through the thread of a sink."""
    ((name, sink),) = make_sinks(SinksConfig.model_validate(config)).items()
    outlet = Outlet(name, sink, RunFacts("a-run", folder, resumed, SETTINGS))
    for record in records:
        outlet.offer(record)
    outlet.end("finished")
    assert outlet.close(time.monotonic() + 60.0) == SinkCounts(len(records), 0)
    outlet._thread.join(10)
    assert not outlet._thread.is_alive()


@needs("tensorboard")
def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write({"tensorboard": {}}, tmp_path, RECORDS)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    losses = [(e.step, e.wall_time, e.value) for e in read.Scalars("attacker/loss")]
    assert losses == [(1, 1000.0, 0.75), (2, 1001.0, 0.5)]
    assert set(read.Tags()["scalars"]) == {name for record in RECORDS for name in record.values}
    (table,) = read.Tensors("recipe/text_summary")
    assert b"| game.attacks | 2 |" in table.tensor_proto.string_val[0]


@needs("mlflow")
def test_mlflow_and_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    store = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    config = {"mlflow": {"tracking_uri": store, "experiment": "games"}}
    write(config, tmp_path / "sink", RECORDS)
    write(config, tmp_path / "sink", [Record("attacker", 3, 1004.0, {"attacker/loss": 0.25})], resumed=True)
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("games")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "a-run" and run.info.status == "FINISHED"
    assert run.data.params == {key: str(value) for key, value in SETTINGS.items()}
    history = client.get_metric_history(run.info.run_id, "attacker/loss")
    assert sorted((e.step, e.timestamp, e.value) for e in history) == [
        (1, 1000000, 0.75),
        (2, 1001000, 0.5),
        (3, 1004000, 0.25),
    ]
    assert run.data.metrics["heldout/ratio/attack_success"] == 0.25
    write(config, tmp_path / "other", RECORDS[:1])
    assert len(client.search_runs([experiment.experiment_id])) == 2, "another run of that name is another one"


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of W&B's transaction log: LevelDB's log format (blocks of 32 KiB) behind seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record as Stored

    data, at, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Stored.FromString(whole)
            whole = b""


@needs("wandb")
def test_wandb_offline_and_its_own_process_is_gone(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    write({"wandb": {"mode": "offline", "project": "games"}}, tmp_path, RECORDS)
    assert set(psutil.Process().children(recursive=True)) <= before
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    stored = list(wandb_records(file))
    (begun,) = [r.run for r in stored if r.WhichOneof("record_type") == "run"]
    assert (begun.project, begun.display_name) == ("games", "a-run")
    assert {item.key or "/".join(item.nested_key): item.value_json for item in begun.config.update}[
        "game.attacks"
    ] == "2"
    rows = [
        {item.key or "/".join(item.nested_key): float(item.value_json) for item in r.history.item}
        for r in stored
        if r.WhichOneof("record_type") == "history"
    ]
    assert [row["attacker/loss"] for row in rows if "attacker/loss" in row] == [0.75, 0.5]
    assert [row["attacker/step"] for row in rows if "attacker/loss" in row] == [1.0, 2.0]
    assert [row["heldout/step"] for row in rows if "heldout/ratio/attack_success" in row] == [2.0]
    axes = {
        r.metric.glob_name or r.metric.name: r.metric.step_metric
        for r in stored
        if r.WhichOneof("record_type") == "metric"
    }
    assert axes["attacker/*"] == "attacker/step" and axes["heldout/*"] == "heldout/step"
    kinds = {r.WhichOneof("record_type") for r in stored}
    assert not kinds & {"output", "output_raw", "stats"}, "neither what is printed nor the machine goes out"
    log = "".join(
        path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.suffix in (".txt", ".json", ".yaml")
    )
    assert psutil.Process().cwd() not in log


NEVER_ANSWERS = """
import os, socket, sys, time
from pathlib import Path
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(open(os.devnull, "w")))  # a run has a file for it
server = socket.create_server(("127.0.0.1", 0))
os.environ |= {"WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}", "WANDB_API_KEY": "x" * 40}
from cluster.observe.sinks.outlet import Outlet
from cluster.observe.sinks.sink import Record, RunFacts
from cluster.observe.sinks.sinks import make_sinks
from protocol.recipe import SinksConfig
from tests.paths import ROOT
((name, sink),) = make_sinks(SinksConfig.model_validate({"wandb": {}})).items()
outlet = Outlet(name, sink, RunFacts("a-run", Path(sys.argv[1]), False, {}))
outlet.offer(Record("run", 1, 1.0, {"run/x": 1.0}))
server.settimeout(120)
server.accept()  # it is asking
outlet.end("finished")
print(outlet.close(time.monotonic() + 0.2), time.time())
"""


@needs("wandb")
def test_a_wandb_server_that_never_answers_keeps_neither_the_run_nor_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NEVER_ANSWERS, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    gone_s = time.time()
    counts, at_s = ended.stdout.rsplit(maxsplit=1)
    assert counts == str(SinkCounts(0, 1, "was not done in time at the end of the run"))
    assert ended.returncode == 0 and gone_s - float(at_s) < 30.0, "without `abandon` it is more than a minute"
    assert ended.stderr == "", "the terminal is the run's"
