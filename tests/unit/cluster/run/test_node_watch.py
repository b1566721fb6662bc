"""A lost node is told once, with the parts that were on it then."""

from pathlib import Path

import structlog

from cluster.plan.places import Node
from cluster.run.node_watch import NodeWatch
from cluster.rundir import RunDir

A, B = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")


def test_a_lost_node_is_named_with_its_parts_once() -> None:
    told: list[str] = []
    watch = NodeWatch(RunDir(Path("/runs/a")), told.append)
    parts = {"replay-0": A, "judge-0": B, "generation-defender-1": B}
    watch.note(parts, {"a", "b"})
    assert told == []
    with structlog.testing.capture_logs() as logs:
        watch.note(parts, {"a"})
        watch.note(parts, {"a"})
    assert told == ["node 10.0.0.2 is lost, with generation-defender-1, judge-0"]
    assert [entry["parts"] for entry in logs] == [["generation-defender-1", "judge-0"]]


def test_a_part_that_moved_before_is_not_lost_with_its_former_node() -> None:
    told: list[str] = []
    watch = NodeWatch(RunDir(Path("/runs/a")), told.append)
    watch.note({"judge-0": B, "judge-1": B}, {"a", "b"})
    watch.note({"judge-0": A, "judge-1": B}, {"a", "b"})
    watch.note({"judge-0": A, "judge-1": B}, {"a"})
    assert told == ["node 10.0.0.2 is lost, with judge-1"]
    watch.note({"judge-0": A, "judge-1": A}, {"a"})
    watch.note({"judge-0": A, "judge-1": A}, set())
    assert told[1:] == ["node 10.0.0.1 is lost, with judge-0, judge-1"]


def test_a_node_of_a_former_part_of_a_resumed_run_is_not_missed() -> None:
    told: list[str] = []
    NodeWatch(RunDir(Path("/runs/a")), told.append).note({"judge-0": B}, {"a"})
    assert told == []
