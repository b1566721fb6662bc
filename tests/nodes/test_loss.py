"""A node is lost in the middle of a run, its processes killed or its link cut: the run says which, and goes on to its end."""

import re
import time
from pathlib import Path

import pytest

from tests.e2e.runs import check_books, summary_of
from tests.nodes.cluster import Job, RayNodes
from tests.nodes.network import pids_in

RUN_S = 1200.0
LOST_S = 180.0  # until Ray counts a silent node among the dead, and the run says so


def start(nodes: RayNodes, run_dir: Path, name: str, kind: str) -> tuple[Job, int]:
    """A run on nodes 2 and 3 that plays, with room on a fourth; and the number of a node with a part of that kind.

    The head has no CPUs, so that each part is on a node that can be lost while the job's driver lives.
    """
    nodes.add(cpus=0)
    for _ in range(2):
        nodes.add(cpus=3)
    job = nodes.submit(run_dir, name, **{"run.steps": 24, "run.stall_s": 240})
    places = job.places()
    nodes.add(cpus=3)
    job.wait_for(r"playing; the learners join", 400)
    wait_for_checkpoint(job)
    held = {role: nodes.number_of(address) for role, address in places.items()}
    return job, next(k for role, k in held.items() if role.startswith(kind))


def wait_for_checkpoint(job: Job) -> None:
    """Until the learners learn: a node that is lost before that is lost while nothing is at stake."""
    deadline = time.monotonic() + 400
    while not any((job.run / "checkpoints").glob("*/step-*[0-9]")):
        assert time.monotonic() < deadline, job.output
        time.sleep(0.2)


def check_end(job: Job, nodes: RayNodes, lost: int) -> None:
    address = nodes.network.address(lost)
    assert re.search(rf"node {re.escape(address)} is lost, with \S+-\d", job.output), job.output
    summary = summary_of(job.run)
    assert summary["status"] == "finished", summary["note"]
    check_books(summary)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", ["generation", "learner", "judge"])
def test_a_run_goes_on_without_a_node_whose_processes_are_killed(kind: str, nodes: RayNodes, tmp_path: Path) -> None:
    job, victim = start(nodes, tmp_path, "killed", kind)
    nodes.network.kill(victim)
    assert job.end(RUN_S), job.output
    check_end(job, nodes, victim)


@pytest.mark.timeout(2400)
def test_a_run_goes_on_without_a_node_that_is_cut_off_and_lives(nodes: RayNodes, tmp_path: Path) -> None:
    """Its parts go on writing into the shared folder for a while: what they write there must not count."""
    job, victim = start(nodes, tmp_path, "cut", "learner")
    nodes.network.cut(victim)
    assert pids_in(nodes.network.space(victim)), "it lives on"
    job.wait_for(rf"node {re.escape(nodes.network.address(victim))} is lost", LOST_S)
    assert job.end(RUN_S), job.output
    check_end(job, nodes, victim)


@pytest.mark.timeout(2400)
def test_without_room_elsewhere_the_end_names_the_part_and_its_node(nodes: RayNodes, tmp_path: Path) -> None:
    """Of a lost node it was said that an actor died: which, and where, the logs did not say either."""
    nodes.add(cpus=0)
    for _ in range(2):
        nodes.add(cpus=3)
    job = nodes.submit(tmp_path, "lost", **{"run.steps": 200, "run.stall_s": 60})
    job.places()
    job.wait_for(r"playing; the learners join", 400)
    nodes.network.kill(3)
    assert not job.end(RUN_S)
    assert re.search(rf"node {re.escape(nodes.network.address(3))} is lost, with \S+-\d", job.output), job.output
    assert "an actor died" not in job.output
    assert summary_of(job.run)["status"] == "failed"
