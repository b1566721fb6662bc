"""The whole system on the sandbox, as a user runs it beside a real Prometheus (`make watch`): real vLLM, Ray, Arrow and ZeRO-3.

One run, looked at in several tests: what boards and alerts ask for, what the run leaves. It stays up, as `--stay` says, until the
last of them. Without Prometheus it is the same run without it, and the tests that ask it skip.
"""

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from actors.generation import GenerationWorker
from cluster.inputs.recipe_file import load_recipe
from cluster.observe.alerts import ALERTS, RULES
from cluster.sandbox import ensure_sandbox
from protocol.metrics import CATALOGUE
from protocol.recipe import Recipe
from protocol.rows import check_schema
from tests.e2e.runs import Program, check_books, scrape, settings, summary_of
from tests.net import free_port
from tests.paths import ROOT
from tests.selectors import BY_SERIES, is_sure, metric_of, selectors_of

RECIPE = "deploy/recipes/sandbox.yaml"
BOARDS = ROOT / "deploy" / "grafana" / "dashboards"
ALL_PLAYERS = "attacker|defender"
CAMEL_CASE = "label names should be written in 'snake_case' not 'camelCase'"  # Ray's own labels: NodeAddress, ...
STEPS = 12
SETTINGS = {
    "run.steps": STEPS,
    "heldout.every": 4,
    "judge.probe.file": "sandbox",
    "judge.probe.every": 4,
    "promotion": "{}",
    "observe.sinks": "{tensorboard: {}}",
}
WITH_PROMETHEUS = shutil.which("prometheus") is not None and shutil.which("promtool") is not None

pytestmark = pytest.mark.timeout(900)
asks_prometheus = pytest.mark.skipif(
    not WITH_PROMETHEUS,
    reason="prometheus and promtool are not on the PATH: apt-get install --no-install-recommends prometheus",
)


class Api:
    """Prometheus' own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        answer = json.loads(scrape(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def count(self, selector: str) -> int:
        """How many series that it matches the run has had."""
        found = self.get("query", query=f"count(last_over_time({selector}[1h]))")["result"]
        return int(found[0]["value"][1]) if found else 0


def exprs_of_boards(run: str) -> Iterator[str]:
    """Every query of every panel, with the boards' variables set to the run and to both players."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("expr"), str):
                yield value["expr"]
            yield from (expr for inner in value.values() for expr in walk(inner))
        elif isinstance(value, list):
            yield from (expr for inner in value for expr in walk(inner))

    named = {"run": run, "player": ALL_PLAYERS}
    for board in sorted(BOARDS.glob("*.json")):
        for expr in walk(json.loads(board.read_text())):
            yield re.sub(r"\$\{?(run|player)\}?", lambda found: named[found[1]], expr)


def exprs_of_rules() -> Iterator[str]:
    for group in yaml.safe_load((ROOT / RULES).read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


@dataclass(frozen=True)
class Watched:
    """A run that has ended, and what was seen of it.

    Attributes:
        text: of Ray's endpoint while it ran, the scrape with the most series of ours.
        api: Prometheus', which is still up; None without it.
        alerts_page: the address that was printed; "" without it.
    """

    folder: Path
    text: str
    api: Api | None
    alerts_page: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    ensure_sandbox()
    folder = tmp_path_factory.mktemp("runs")
    command = ["watch", RECIPE, f"--port={free_port()}", "--stay"] if WITH_PROMETHEUS else ["train", RECIPE]
    # Ray reports its metrics every ten seconds, and the run takes not much longer: every second here.
    often = {"RAY_metrics_report_interval_ms": "1000"}
    program = Program(*command, *settings(folder, "w", **SETTINGS), env=often)
    try:
        metrics_url = program.wait_for(r"metrics (http\S+)", 200)[1]
        api, alerts_page = None, ""
        if WITH_PROMETHEUS:
            url, alerts_page = program.wait_for(r"Prometheus (http\S+), alerts (http\S+)", 60).groups()
            api = Api(url)
        program.wait_for("playing", 300)
        seen = ""
        while program.process.poll() is None and "stay until Ctrl-C" not in program.output:
            seen = longest(seen, metrics_url)
            time.sleep(1.0)
        if WITH_PROMETHEUS:
            assert program.process.poll() is None, program.output
            time.sleep(5.0)  # the last values of the run, and the rules on them
        yield Watched(folder / "w", longest(seen, metrics_url), api, alerts_page)
        program.interrupt()
        assert program.end(90) == 0, program.output
        assert not program.processes(), "Prometheus or a part of Ray stayed"
        assert "Traceback" not in program.output
    finally:
        program.clean_up()


def longest(seen: str, url: str) -> str:
    """The scrape with the most series of ours: a run's early ones lack some, and its last ones the learners'."""
    try:
        now = scrape(url)
    except OSError:  # it has been taken down
        return seen
    return max(seen, now, key=lambda text: text.count("\nray_advgame_"))


@asks_prometheus
def test_what_boards_and_alerts_select_is_there(run: Watched) -> None:
    """What the catalogue is sure of is there; and so is what panels and rules select."""
    api = run.api
    assert api is not None
    assert not [
        metric.name for metric in CATALOGUE if not metric.only and not metric.gpu and not api.count(metric.series[0])
    ]
    exprs = [*exprs_of_boards("w"), *exprs_of_rules()]
    selectors = sorted({selector for expr in exprs for selector in selectors_of(expr)})
    sure = [selector for selector in selectors if is_sure(selector)]
    print(f"{len(exprs)} expressions, {len(selectors)} selectors, {len(sure)} of them sure in a run without a fault")
    assert not [selector for selector in sure if not api.count(selector)]
    # That an order end is told at all is what silences the alerts about a missing driver.
    assert api.get("query", query='ray_advgame_phase{role="driver-0",phase="ending"}')["result"][0]["value"][1] == "1"
    missing = {metric.name for metric in CATALOGUE} - {metric_of(selector).name for selector in selectors}
    if list(BOARDS.glob("*.json")):
        assert not missing, f"no panel and no rule shows {missing}"


def test_every_series_of_ours_is_in_the_catalogue(run: Watched) -> None:
    """The endpoint's text, as Ray's node gives it."""
    ours = {line.split("{")[0] for line in run.text.splitlines() if line.startswith("ray_advgame_")}
    assert ours <= set(BY_SERIES), ours - set(BY_SERIES)
    assert len(ours) > 60


@asks_prometheus
def test_promtool_finds_no_fault_in_the_endpoints_text(run: Watched) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=run.text, capture_output=True, text=True, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "advgame" in line or line.startswith("error")]
    assert not [line for line in said if CAMEL_CASE not in line]


@asks_prometheus
def test_every_rule_is_evaluated_and_none_fires_about_a_run_that_went_well(run: Watched) -> None:
    """Prometheus evaluates all of them, and none that wants somebody now fires about a run that went well."""
    api = run.api
    assert api is not None
    rules = [rule for group in api.get("rules")["groups"] for rule in group["rules"]]
    assert "AdvgameHeartbeatMissing" in scrape(run.alerts_page), "the page whose address is printed"
    assert {rule["name"] for rule in rules} == {alert.name for alert in ALERTS}
    assert not [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"]
    critical = {alert.name for alert in ALERTS if alert.severity == "critical"} - {"AdvgameReplayDiskLow"}
    assert not [rule["name"] for rule in rules if rule["name"] in critical and rule["state"] != "inactive"]


async def loaded_checksum(folder: Path, recipe: Recipe) -> str:
    """The checksum that a fresh engine computes over the weights of a folder."""
    from actors.weights.update import digest_of

    worker = GenerationWorker("defender", str(folder), recipe.generation)
    try:
        await worker.start()
        return digest_of(await worker.checksums())
    finally:
        await worker.shutdown()


def test_what_it_leaves_is_whole_and_agrees(run: Watched) -> None:
    summary = summary_of(run.folder)
    check_books(summary)
    assert summary["status"] == "finished"
    assert summary["steps"] == {"attacker": STEPS, "defender": STEPS}
    assert all(0 < n <= STEPS for n in summary["versions_pushed"].values())  # newest wins where pushes queue up
    assert summary["judge"]["verdicts"] > 0 and summary["judge"]["failed"] == 0
    assert sum(summary["states"]["attack"].values()) == 2 * summary["games"]["finished"]
    assert sum(summary["states"]["response"].values()) == 4 * summary["games"]["finished"]
    assert set(summary["heldout"]) == {"start", "end", "end_trained_attacker", "points", "skipped"}
    # Three were due while it learned, the last too near its end; the games went on, and each gave a score or is counted.
    occasions = [point["occasion"] for point in summary["heldout"]["points"]]
    assert (occasions[0], *occasions[-2:]) == ("start", "end", "end_trained_attacker")
    assert len(occasions) - 3 + sum(summary["heldout"]["skipped"].values()) == 3
    assert summary["heldout"]["start"]["attack_success"] >= 0.45
    assert summary["heldout"]["start"]["over_refusal"] >= 0.15

    # The rule judge never changes its mind, and twelve steps are too few to promote anything.
    probes = [json.loads(line) for line in (run.folder / "probe.jsonl").read_text().splitlines()]
    assert len(probes) >= 2 and all((p["drift"], p["changed"], p["accuracy"]) == (0, 0, 1) for p in probes)
    decision = json.loads((run.folder / "export" / "defender" / "promotion.json").read_text())
    assert decision == summary["promotion"]
    assert decision == json.loads(
        (run.folder / "checkpoints" / "defender" / f"step-{STEPS}" / "promotion.json").read_text()
    )
    assert decision["promoted"] == (not decision["reasons"]) and "attack_success" in decision["changes"]

    for player in ("attacker", "defender"):
        assert summary["push"][player]["moved"] == summary["push"][player]["count"] > 0
        for segment in sorted((run.folder / "replay").glob(f"{player}-*.arrow")):
            reader = pa.ipc.open_stream(segment)
            check_schema(reader.schema, segment.name)
    metrics = pq.read_table(run.folder / "metrics.parquet").to_pylist()
    assert [m["step"] for m in metrics if m["player"] == "defender"] == list(range(1, STEPS + 1))
    assert metrics[-1]["heldout_version"] is not None or metrics[-2]["heldout_version"] is not None
    logs = {p.name.rsplit("-", 1)[0] for p in (run.folder / "logs").iterdir()}
    assert {"driver", "replay", "publisher", "rollout", "judge", "generation-attacker", "learner-defender"} <= logs

    # Every push moved the weights (above), and what the worker serves is what a fresh engine finds in the export.
    recipe = load_recipe(ROOT / RECIPE)
    exported = asyncio.run(loaded_checksum(run.folder / "export" / "defender", recipe))
    assert exported == summary["workers"]["defender"][0]["checksum"]

    from huggingface_hub import ModelCard
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    for player in ("attacker", "defender"):
        folder = run.folder / "export" / player
        assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.chat_template == (folder / "chat_template.jinja").read_text()
        ends = GenerationConfig.from_pretrained(folder)
        assert (ends.eos_token_id, ends.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
        card = (folder / "README.md").read_text()
        assert player in ModelCard(card).data.tags
        success = summary["heldout"]["start"]["attack_success"]
        assert "did not finish" not in card and f"| attack success | {100 * success:.0f} % [" in card
        assert str(run.folder.parent) not in card, "a card names no path of this machine"
    assert any((run.folder / "sinks" / "tensorboard").rglob("events.out.tfevents.*"))
    assert summary["sinks"]["tensorboard"]["dropped"] == 0 < summary["sinks"]["tensorboard"]["written"]
