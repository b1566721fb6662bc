"""Room for a run, from a cluster that stands for Ray's: all of it or nothing, waited for, and under a name that nobody has."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.plan import reserving
from cluster.plan.plan import Plan
from cluster.run import reserve as module
from cluster.run.reserve import reserve, take_nodes
from protocol.errors import UserError
from tests.unit.cluster.plan.plans import parse_plan

GIB = 2**30


@dataclass(eq=False)
class Group:
    bundles: list[dict[str, float]]
    strategy: str
    name: str
    state: str = "PENDING"


@dataclass
class FakeRay:
    """Two nodes of eight CPUs. `gives`: whether a group that is asked for is placed, by its name ("" for a learner's)."""

    gives: Callable[[Group], bool] = lambda _: True
    groups: list[Group] = field(default_factory=list)
    actors: list[str] = field(default_factory=list)

    def placement_group(self, bundles: list[dict[str, float]], strategy: str, name: str = "") -> Group:
        if name and any(g.name == name and g.state != "REMOVED" for g in self.groups):
            raise RuntimeError("Failed to create placement group: the name already exists")
        self.groups.append(Group(bundles, strategy, name))
        return self.groups[-1]

    def table(self, group: Group) -> dict[str, Any]:
        if group.state == "PENDING" and self.gives(group):
            group.state = "CREATED"
        return {"state": group.state, "bundles_to_node_id": {k: f"n{k % 2}" for k in range(len(group.bundles))}}

    def remove(self, group: Group) -> None:
        group.state = "REMOVED"

    def find(self, name: str) -> Group:
        found = [g for g in self.groups if g.name == name and g.state != "REMOVED"]
        if not found:
            raise ValueError(name)
        return found[0]

    @property
    def held(self) -> list[Group]:
        return [group for group in self.groups if group.state != "REMOVED"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    nodes = [
        {"NodeID": f"n{k}", "NodeManagerAddress": f"10.0.0.{k}", "Alive": True, "Resources": {"CPU": 8.0}}
        for k in range(2)
    ]
    ray = SimpleNamespace(
        nodes=lambda: nodes,
        available_resources=lambda: {"CPU": 3.0, "memory": 500.0 * GIB},
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "n0"),
        util=SimpleNamespace(list_named_actors=lambda: fake.actors),
    )
    monkeypatch.setattr(module, "ray", ray)
    monkeypatch.setattr(module, "placement_group", fake.placement_group)
    monkeypatch.setattr(module, "placement_group_table", fake.table)
    monkeypatch.setattr(module, "remove_placement_group", fake.remove)
    monkeypatch.setattr(module, "get_placement_group", fake.find)
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(module, "PAUSE_S", (0.0, 0.002))
    monkeypatch.setattr(reserving, "HOLD_S", 0.02)
    return fake


def plan_with(placement_s: float = 5.0, **values: Any) -> Plan:
    learners = {"attacker": {"ranks": 4, "cpus_per_rank": 2.0}, "defender": {"ranks": 5, "cpus_per_rank": 2.0}}
    return replace(parse_plan({"learners": learners, **values}), placement_s=placement_s)


async def test_everything_is_reserved_with_its_nodes_and_a_group_is_whole_where_it_fits(cluster: FakeRay) -> None:
    reserved = await reserve(plan_with(), False, lambda _: None)
    strategies = {len(group.bundles): group.strategy for group in cluster.groups if not group.name}
    assert strategies == {4: "STRICT_PACK", 5: "PACK"}, "eight CPUs are a node, ten are not"
    assert reserved.places.of["learner-defender-1"].address == "10.0.0.1" and reserved.home == "n0"
    assert set(reserved.places.of) >= {"replay-0", "publisher-0", "judge-0", "rollout-0", "learner-attacker-3"}
    reserved.give_back()
    assert not cluster.held


async def test_a_part_of_the_room_is_given_back_until_all_of_it_is_free(cluster: FakeRay) -> None:
    """R34: learners were outside the reservation; two runs that each hold a part of what both need would wait for ever."""
    cluster.gives = lambda group: not group.name or len(cluster.groups) > 6
    await reserve(plan_with(), False, lambda _: None)
    assert len(cluster.groups) > 6 and len(cluster.held) == 3


async def test_room_that_is_only_asked_for_stays_asked_for_and_the_wait_is_told(cluster: FakeRay) -> None:
    """R36: a look at what is free now refused a cluster that grows. An autoscaler sees what is asked for, and nothing else."""
    told: list[str] = []
    arrived = asyncio.Event()
    cluster.gives = lambda _: arrived.is_set()
    waiting = asyncio.create_task(reserve(plan_with(), False, told.append))
    await asyncio.sleep(0.1)
    assert not waiting.done() and len(cluster.groups) == 3 and len(cluster.held) == 3
    assert "CPUs are needed, the cluster has 3 CPUs free" in told[0]
    arrived.set()
    await waiting


async def test_what_does_not_come_in_time_is_refused_in_a_line_and_nothing_is_held(cluster: FakeRay) -> None:
    cluster.gives = lambda group: not group.name
    with pytest.raises(UserError, match=r"needs [\d.]+ CPUs at once, the cluster has 3 free; .*run\.placement_s\)$"):
        await reserve(plan_with(0.05), False, lambda _: None)
    assert not cluster.held


async def test_an_interrupted_wait_holds_nothing(cluster: FakeRay) -> None:
    cluster.gives = lambda group: not group.name
    waiting = asyncio.create_task(reserve(plan_with(), False, lambda _: None))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not cluster.held


@pytest.mark.parametrize("how", ["its parts", "its wait for room", "in this moment"])
async def test_a_name_that_a_run_on_the_cluster_has_is_refused_and_nothing_is_held(
    how: str, cluster: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R35: it was a ValueError of Ray's after the directory was made."""
    if how == "its parts":
        cluster.actors = ["b/replay-0", "a/replay-0"]
    else:
        cluster.placement_group([], "PACK", "a")
    if how == "in this moment":  # both looked before either asked
        monkeypatch.setattr(module, "_wait_for_name", lambda *_: asyncio.sleep(0))
    with pytest.raises(
        UserError, match=r"^run\.name: a is the name of a run that is on this cluster now; give this one"
    ):
        await reserve(plan_with(), False, lambda _: None)
    assert [group.name for group in cluster.held] == ([] if how == "its parts" else ["a"])


async def test_another_runs_name_that_begins_alike_is_another_name(cluster: FakeRay) -> None:
    cluster.actors = ["ab/replay-0", "b/a/replay-0"]
    await reserve(plan_with(), False, lambda _: None)


async def test_a_resumed_run_waits_until_the_parts_of_the_driver_before_are_gone(cluster: FakeRay) -> None:
    """R36: `--resume` right after a crash was refused."""
    cluster.actors = ["a/replay-0"]
    told: list[str] = []
    waiting = asyncio.create_task(reserve(replace(plan_with(), resumed=True), False, told.append))
    await asyncio.sleep(0.02)
    assert not waiting.done() and not cluster.groups and "still ending" in told[0]
    cluster.actors = []
    await waiting


async def test_a_clusters_memory_is_not_waited_for(cluster: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "available_resources", lambda: {"CPU": 99.0, "memory": 1.0 * GIB})
    with pytest.raises(UserError, match="GiB of memory"):
        await reserve(plan_with(), False, lambda _: None)
    assert not cluster.held


def test_a_placeholder_is_given_back_once_and_tells_the_nodes_of_its_ranks(cluster: FakeRay) -> None:
    group: Any = cluster.placement_group([{"CPU": 1.0}] * 3, "PACK")
    assert cluster.table(group)["state"] == "CREATED"
    assert take_nodes(group) == ("n0", "n1", "n0") and group.state == "REMOVED"
    assert take_nodes(group) == (), "Ray started the group's task again: its room is Train's, or anybody's"
    lost: Any = cluster.placement_group([{"CPU": 1.0}], "PACK")
    lost.state = "RESCHEDULING"
    assert take_nodes(lost) == () and lost.state == "REMOVED"
