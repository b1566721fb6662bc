"""The sandbox by `ray job submit` over several nodes: parts on all of them, one learner group over two, and the books hold."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.runs import check_books, summary_of
from tests.nodes.cluster import RayNodes

RUN_S = 900.0


def kinds_on(places: Mapping[str, str]) -> dict[str, set[str]]:
    """The kinds of parts on each node."""
    found: dict[str, set[str]] = defaultdict(set)
    for role, address in places.items():
        found[address].add(role.partition("-")[0])
    return found


def check_logs(run: Path, places: Mapping[str, str]) -> None:
    """Each part says in its log that it is where `plan.json` says that it was placed."""
    for role, address in places.items():
        said = set(re.findall(r" node=(\S+?)\]", (run / "logs" / f"{role}.log").read_text()))
        assert said <= {address}, role
    placed = (run / "logs" / "driver-0.log").read_text()
    for role, address in places.items():
        assert re.search(rf"event='placed' part='{role}' on_node='{address}'", placed), role


@pytest.mark.timeout(1500)
def test_a_submitted_run_has_its_parts_on_two_nodes(nodes: RayNodes, tmp_path: Path) -> None:
    for _ in range(2):
        nodes.add(cpus=3)
    job = nodes.submit(tmp_path, "job", **{"run.steps": 4})
    places = job.places()
    assert job.end(RUN_S), job.output
    kinds = kinds_on(places)
    assert len(kinds) == 2, places
    assert {"generation", "judge", "learner", "publisher", "replay", "rollout"} == set().union(*kinds.values())
    check_logs(job.run, places)
    summary = summary_of(job.run)
    assert summary["status"] == "finished"
    check_books(summary)
    assert all(worker == 4 for worker in [summary["steps"][p] for p in ("attacker", "defender")]), summary["steps"]
    assert "placed on 2 nodes: " in job.output


@pytest.mark.timeout(1500)
def test_one_learner_group_lies_over_two_nodes_where_no_node_holds_it(nodes: RayNodes, tmp_path: Path) -> None:
    for _ in range(3):
        nodes.add(cpus=3)
    ranks = {"learners.attacker.train": "false", "learners.defender.ranks": 2, "learners.defender.cpus_per_rank": 2.0}
    job = nodes.submit(tmp_path, "wide", **ranks, **{"run.steps": 4})
    places = job.places()
    assert job.end(RUN_S), job.output
    assert len({places[f"learner-defender-{rank}"] for rank in range(2)}) == 2, places
    logs = [(job.run / "logs" / f"learner-defender-{rank}.log").read_text() for rank in range(2)]
    assert len({found for log in logs for found in re.findall(r" node=(\S+?)\]", log)}) == 2
    check_books(summary_of(job.run))


@pytest.mark.timeout(1500)
def test_a_learner_group_is_on_one_node_where_one_holds_it(nodes: RayNodes, tmp_path: Path) -> None:
    """R34: PACK over what is left of the first nodes would split it 1 + 2."""
    for cpus in (2, 2, 4):
        nodes.add(cpus=cpus)
    ranks = {"learners.attacker.train": "false", "learners.defender.ranks": 3}
    job = nodes.submit(tmp_path, "whole", **ranks, **{"run.steps": 3})
    places = job.places()
    assert len({places[f"learner-defender-{rank}"] for rank in range(3)}) == 1, places
    assert job.end(RUN_S), job.output
    check_logs(job.run, places)
