"""The whole system on the sandbox, as a user runs it: real vLLM, Ray, Arrow and ZeRO-3."""

import time
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from cluster.sandbox import ensure_sandbox
from tests.e2e.runs import Program, check_books, interrupt_at, settings, summary_of

RECIPE = "deploy/recipes/sandbox.yaml"
STEPS = 10  # of the run that is interrupted


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
