"""Room for a run from a real Ray: the groups, their nodes, and the name that only one run may have."""

import time
from dataclasses import replace
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from cluster.plan.plan import Plan
from cluster.run.reserve import Reservation, is_name_used, request, reserve, take_nodes
from learners.nodes import ask_for, avoid_lost
from protocol.errors import UserError
from tests.unit.cluster.plan.plans import parse_plan

SMALL = {
    "generation": {"cpus_per_worker": 0.1},
    "judge": {"cpus_per_worker": 0.1},
    "learners": {
        "attacker": {"ranks": 2, "cpus_per_rank": 0.2},
        "defender": {"ranks": 1, "cpus_per_rank": 0.2},
    },
}


def plan_with(placement_s: float = 30.0, **changes: Any) -> Plan:
    return replace(parse_plan(SMALL | changes), placement_s=placement_s)


def wait_until_free(name: str) -> None:
    deadline = time.monotonic() + 20
    while is_name_used(name):
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def reserved(plan: Plan) -> Reservation:
    return await reserve(plan, True, lambda _: None)


async def test_a_runs_room_its_name_and_its_learners_nodes(local_ray: None) -> None:
    plan = plan_with()
    first = await reserved(plan)
    (node,) = {node.id for node in first.places.of.values()}
    assert node == first.home == ray.get_runtime_context().get_node_id()
    assert {"replay-0", "judge-0", "learner-attacker-1", "learner-defender-0"} <= set(first.places.of)
    with pytest.raises(UserError, match=r"^run\.name: a is the name of a run that is on this cluster now"):
        await reserved(plan)
    with pytest.raises(UserError, match=r"^run\.name: a is the name"):
        request(plan)  # as another driver that looked before we had it
    assert take_nodes(first.learners["attacker"]) == (node, node)
    assert take_nodes(first.learners["attacker"]) == ()
    first.give_back()
    wait_until_free("a")
    again = await reserved(plan)
    again.give_back()
    wait_until_free("a")


async def test_too_little_room_is_refused_and_holds_nothing(local_ray: None) -> None:
    before = ray.cluster_resources()["CPU"]
    with pytest.raises(UserError, match=r"needs [\d.]+ CPUs at once, this machine has .*run\.placement_s\)$"):
        await reserved(plan_with(1.0, generation={"cpus_per_worker": 3 * before}))
    wait_until_free("a")


def test_ray_takes_the_selectors_of_a_learner_group(local_ray: None) -> None:
    node = ray.get_runtime_context().get_node_id()
    on_it = placement_group([{"CPU": 0.1}] * 2, strategy="PACK", bundle_label_selector=ask_for([node, node]))
    assert on_it.wait(20)
    lost = avoid_lost(["ab" * 28], [node])
    assert lost is not None
    elsewhere = placement_group([{"CPU": 0.1}], strategy="PACK", bundle_label_selector=[lost])
    assert elsewhere.wait(20)
    nowhere = placement_group([{"CPU": 0.1}], bundle_label_selector=[avoid_lost([node], []) or {}])
    assert not nowhere.wait(3), "its only node is the one to be avoided"
    for group in (on_it, elsewhere, nowhere):
        remove_placement_group(group)
