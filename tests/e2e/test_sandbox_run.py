"""The whole system on the sandbox, as a user runs it: real vLLM, Ray, Arrow and ZeRO-3."""

import asyncio
import json
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.generation import GenerationWorker
from cluster.inputs.recipe_file import load_recipe
from cluster.sandbox import ensure_sandbox
from protocol.recipe import Recipe
from protocol.rows import check_schema
from tests.e2e.runs import ROOT, Program, check_books, interrupt_at, scrape, settings, summary_of

RECIPE = "deploy/recipes/sandbox.yaml"
STEPS = 16  # of the run that is interrupted


async def loaded_checksum(folder: Path, recipe: Recipe) -> str:
    """The checksum that a fresh engine computes over the weights of a folder."""
    from actors.weights.update import digest_of

    worker = GenerationWorker("defender", str(folder), recipe.generation)
    try:
        await worker.start()
        return digest_of(await worker.checksums())
    finally:
        await worker.shutdown()


@pytest.mark.timeout(900)
def test_a_run_from_start_to_export(tmp_path: Path) -> None:
    ensure_sandbox()
    watched = {"judge.probe.file": "sandbox", "judge.probe.every": 4, "promotion": "{}"}
    # Ray reports its metrics every ten seconds, and eight steps take less: every second here.
    often = {"RAY_metrics_report_interval_ms": "1000"}
    program = Program("train", RECIPE, *settings(tmp_path, "a", **watched), env=often)
    try:
        url = program.wait_for(r"metrics (http\S+)", 200)[1]
        program.wait_for("playing", 300)
        seen = ""
        while program.process.poll() is None:
            text = scrape_while_running(url)
            seen = text if "ray_advgame_player_version" in text else seen
            time.sleep(1.0)
        assert program.end(60) == 0, program.output
        assert not program.processes()
    finally:
        program.clean_up()

    run = tmp_path / "a"
    summary = summary_of(run)
    check_books(summary)
    assert summary["status"] == "finished"
    assert summary["steps"] == {"attacker": 8, "defender": 8}
    assert all(0 < n <= 8 for n in summary["versions_pushed"].values())  # newest wins where pushes queue up
    assert summary["judge"]["verdicts"] > 0 and summary["judge"]["failed"] == 0
    assert sum(summary["states"]["attack"].values()) == 2 * summary["games"]["finished"]
    assert sum(summary["states"]["response"].values()) == 4 * summary["games"]["finished"]
    assert set(summary["heldout"]) == {"start", "end", "end_trained_attacker"}
    assert summary["heldout"]["start"]["attack_success"] >= 0.45
    assert summary["heldout"]["start"]["over_refusal"] >= 0.15
    assert 'player="defender"' in seen and "ray_advgame_rows" in seen

    # The rule judge never changes its mind, and eight steps are too few to promote anything.
    probes = [json.loads(line) for line in (run / "probe.jsonl").read_text().splitlines()]
    assert len(probes) >= 2 and all((p["drift"], p["changed"], p["accuracy"]) == (0, 0, 1) for p in probes)
    decision = json.loads((run / "export" / "defender" / "promotion.json").read_text())
    assert decision == summary["promotion"]
    assert decision == json.loads((run / "checkpoints" / "defender" / "step-8" / "promotion.json").read_text())
    assert decision["promoted"] == (not decision["reasons"]) and "attack_success" in decision["changes"]

    for player in ("attacker", "defender"):
        assert summary["push"][player]["moved"] == summary["push"][player]["count"] > 0
        for segment in sorted((run / "replay").glob(f"{player}-*.arrow")):
            reader = pa.ipc.open_stream(segment)
            check_schema(reader.schema, segment.name)
    metrics = pq.read_table(run / "metrics.parquet").to_pylist()
    assert [m["step"] for m in metrics if m["player"] == "defender"] == list(range(1, 9))
    logs = {p.name.rsplit("-", 1)[0] for p in (run / "logs").iterdir()}
    assert {"driver", "replay", "publisher", "rollout", "judge", "generation-attacker", "learner-defender"} <= logs

    # Every push moved the weights (above), and what the worker serves is what a fresh engine finds in the export.
    recipe = load_recipe(ROOT / RECIPE)
    exported = asyncio.run(loaded_checksum(run / "export" / "defender", recipe))
    assert exported == summary["workers"]["defender"][0]["checksum"]

    from transformers import AutoModelForCausalLM, AutoTokenizer

    for player in ("attacker", "defender"):
        folder = run / "export" / player
        assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
        assert AutoTokenizer.from_pretrained(folder).chat_template


def scrape_while_running(url: str) -> str:
    """The endpoint's text; empty once the run has taken it down."""
    try:
        return scrape(url)
    except OSError:
        return ""


def title_of(process: psutil.Process) -> str:
    """What the process calls itself; nothing if it has just ended, as Ray's idle workers do."""
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.timeout(1200)
def test_interrupted_resumed_with_its_workers_killed_it_ends_with_clean_books(tmp_path: Path) -> None:
    ensure_sandbox()
    # What is learned is not measured here.
    short = settings(tmp_path, "b", **{"run.steps": STEPS, "seeds.heldout": "null"})
    interrupt_at(Program("train", RECIPE, *short), tmp_path / "b", ("defender", 4))
    before = summary_of(tmp_path / "b")

    second = Program("train", "--resume", str(tmp_path / "b"))
    try:
        second.wait_for("playing", 300)
        # While the first of them is gone no game ends, and so neither does the run.
        for name in ("ray::GenerationWorker", "ray::JudgeWorker", "ray::RolloutWorker", "ray::ReplayBuffer"):
            known = {p: title_of(p) for p in second.processes()}
            victims = [p for p, title in known.items() if title.startswith(name)]
            assert victims, f"no {name} among {list(known.values())}"
            victims[0].kill()
            time.sleep(1.0)
        assert second.end(400) == 0, second.output
        assert not second.processes()
    finally:
        second.clean_up()
    summary = summary_of(tmp_path / "b")
    check_books(summary)
    assert summary["status"] == "finished"
    assert summary["steps"] == {"attacker": STEPS, "defender": STEPS}
    assert summary["rows"]["attacker"]["appended"] >= before["rows"]["attacker"]["appended"]
    ids = [
        row_id
        for segment in sorted((tmp_path / "b" / "replay").glob("*.arrow"))
        for row_id in pa.ipc.open_stream(segment).read_all()["row_id"].to_pylist()
    ]
    assert len(ids) == len(set(ids))
