"""A generation worker that is stopped (SIGSTOP) while versions are pushed to it, in a whole sandbox run.

It cannot be asked, shut down or told anything. Its push fails at its deadline, the worker is replaced and ends on the last version,
the learner does not wait for it, and nothing of it is left.
"""

import contextlib
import re
import signal
import time
from datetime import datetime
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from cluster.sandbox import ensure_sandbox
from tests.chaos.test_judge_faults import wait_for_steps
from tests.e2e.runs import Program, check_books, settings, summary_of

RECIPE = "deploy/recipes/sandbox.yaml"
STOPPED_S = 30.0
DEADLINE_S = 10.0
KILL_S = 5.0  # Ray asks a worker to end before it kills it
SLACK_S = 3.0  # of a busy machine
STEPS = 40
RECIPE_CHANGES = {
    "run.steps": STEPS,
    "learners.attacker.train": "false",  # one learner and two workers for it are what this is about
    "generation.workers": 2,
    "generation.cpus_per_worker": 0.2,
    "push.deadline_s": DEADLINE_S,
    "seeds.heldout": "null",
}


def engine_of(program: Program, run: Path, role: str) -> list[psutil.Process]:
    """The actor that writes the role's log, and its engine's processes."""
    for process in program.processes():
        with contextlib.suppress(psutil.Error):
            if any(Path(file.path) == run / "logs" / f"{role}.log" for file in process.open_files()):
                children = process.children(recursive=True)
                if children:
                    return [process, *children]
    raise AssertionError(f"no process of {role}")


def evictions(run: Path) -> list[tuple[float, str, str]]:
    """When, who and why, as the publisher's log tells."""
    line = r"^(\S+ \S+),\d+ WARNING .*worker_evicted.* worker='([^']+)' reason='([^']+)'"
    found = re.findall(line, (run / "logs" / "publisher-0.log").read_text(), flags=re.M)
    return [(datetime.fromisoformat(at).timestamp(), worker, reason) for at, worker, reason in found]


@pytest.mark.timeout(900)
def test_a_stopped_worker_is_replaced_at_its_deadline_and_the_learner_does_not_wait(tmp_path: Path) -> None:
    ensure_sandbox()
    run = tmp_path / "stopped"
    program = Program("train", RECIPE, *settings(tmp_path, "stopped", **RECIPE_CHANGES))
    try:
        program.wait_for("playing", 400)
        wait_for_steps(program, run, 2, 240)
        processes = engine_of(program, run, "generation-defender-0")
        stopped_at = time.time()
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        while not evictions(run):
            assert program.process.poll() is None, program.output[-3000:]
            assert time.time() - stopped_at < STOPPED_S, "no eviction while it was stopped"
            time.sleep(0.2)
        evicted_at = time.time()
        _, alive = psutil.wait_procs(processes, timeout=max(KILL_S + SLACK_S, stopped_at + STOPPED_S - evicted_at))
        assert not alive, "Ray killed the actor, and the kernel its stopped engine"
        assert program.end(500) == 0, program.output[-3000:]
    finally:
        program.clean_up()

    (at, worker, reason), *more = evictions(run)
    assert (worker, reason) == ("defender-0", "deadline") and not more
    rows = pq.read_table(run / "metrics.parquet").to_pylist()
    steps = [row for row in rows if row["player"] == "defender" and row["time"] > stopped_at]
    in_the_dark = [row for row in steps if row["time"] < at]
    first_push = min(row["time"] for row in steps)
    assert at - first_push <= DEADLINE_S + SLACK_S, "the push failed at its deadline"
    assert in_the_dark, "steps were taken while the push hung"
    waits = max(row["stage_s"] for row in steps), max(row["lease_s"] for row in steps)
    assert max(waits) <= DEADLINE_S, f"staging took up to {waits[0]:.1f} s, rows {waits[1]:.1f} s"

    summary = summary_of(run)
    check_books(summary)
    assert summary["steps"]["defender"] == STEPS
    versions = [w["version"] for w in summary["workers"]["defender"]]
    assert versions == [STEPS, STEPS], "both end on the last version, and each step was one"
    print({"evicted_after_s": at - stopped_at, "steps_meanwhile": len(in_the_dark), "longest_waits_s": waits})
