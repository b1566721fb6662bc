"""Where parts go: what is reserved, for how long some of it is held, and what a person is told of it."""

import json
import random

import pytest

from cluster.plan.demand import Demand
from cluster.plan.placement import Bundle, NodeSize, choose_strategy, place
from cluster.plan.places import Node, Places, count_kinds, find_places
from cluster.plan.reserving import HOLD_S, Reserving, Step
from cluster.plan.shortfall import Free, describe_room, refuse_room
from protocol.recipe import parse_recipe

EIGHT = NodeSize(96, 8)


def ranks(n: int, gpus: float = 1.0, cpus: float = 4.0) -> list[Bundle]:
    return [Bundle(f"learner-attacker-{k}", cpus, gpus) for k in range(n)]


def test_the_learners_ranks_are_reserved_as_ray_train_asks_for_them() -> None:
    """R34: what is not reserved another job may take between the start of the engines and that of the ranks."""
    learners = {"attacker": {"ranks": 2, "cpus_per_rank": 3.0, "gpus_per_rank": 1.0}, "defender": {"train": False}}
    placement = place(parse_recipe({"learners": learners}))
    assert [bundle.resources() for bundle in placement.learners["attacker"]] == [{"CPU": 3.0, "GPU": 1.0}] * 2
    assert [bundle.role for bundle in placement.learners["attacker"]] == ["learner-attacker-0", "learner-attacker-1"]
    assert set(placement.learners) == {"attacker"}


@pytest.mark.parametrize(
    ("bundles", "nodes", "strategy"),
    [
        (ranks(8), [EIGHT, EIGHT], "STRICT_PACK"),
        (ranks(9), [EIGHT, EIGHT], "PACK"),
        (ranks(4, cpus=32.0), [EIGHT, EIGHT], "PACK"),  # GPUs enough, and not CPUs
        (ranks(4), [NodeSize(96, 2), EIGHT], "STRICT_PACK"),
        (ranks(3, gpus=0.0, cpus=0.1), [NodeSize(0.3, 0)], "STRICT_PACK"),  # 0.1 + 0.1 + 0.1 is a little more than 0.3
        (ranks(2), [], "PACK"),
    ],
)
def test_a_group_is_on_one_node_where_one_is_large_enough(
    bundles: list[Bundle], nodes: list[NodeSize], strategy: str
) -> None:
    assert choose_strategy(bundles, nodes) == strategy


def test_a_run_has_all_of_its_room_or_holds_none_of_it_for_long() -> None:
    """Over random histories of a cluster: never some of it for longer than HOLD_S, never past the limit."""
    for seed in range(200):
        rng = random.Random(seed)
        wanted, limit_s = rng.randint(1, 4), rng.uniform(5.0, 200.0)
        reserving, now, held_since = Reserving(wanted, limit_s, 0.0), 0.0, None
        for _ in range(2000):
            now += rng.uniform(0.05, 2.0)
            placed = rng.choice([0, 0, rng.randint(0, wanted)] if rng.random() < 0.3 else [min(1, wanted - 1)])
            step = reserving.look(placed, now)
            if placed == wanted:
                assert step is Step.DONE
                break
            if now >= limit_s:
                assert step is Step.GIVE_UP
                break
            if not placed:
                assert step is Step.WAIT, (
                    "what is only asked for holds nothing, and shows an autoscaler what is missing"
                )
                held_since = None
                continue
            held_since = now if held_since is None else held_since
            if now - held_since < HOLD_S:
                assert step is Step.WAIT
            else:
                assert step is Step.GIVE_BACK
                held_since = None
        else:
            raise AssertionError("waits for ever")


def test_the_wait_tells_what_is_needed_and_its_end_what_is_short() -> None:
    needs = Demand(12.0, 8.0, 20.0)
    some = Free(64.0, 6.0, 500.0, "the cluster")
    assert describe_room(needs, some) == "12 CPUs and 8 GPUs are needed, the cluster has 64 CPUs and 6 GPUs free"
    told = str(refuse_room(needs, some, 600.4))
    assert (
        "needs 8 GPUs at once, the cluster has 6 free" in told and "waited 600 s" in told and "run.placement_s" in told
    )
    scattered = str(refuse_room(needs, Free(64.0, 9.0, 500.0, "the cluster"), 600.0))
    assert "not on nodes that can take the parts" in scattered and "\n" not in scattered


def test_the_node_of_each_part_can_be_written_and_told() -> None:
    bundles = [Bundle("replay-0", 0.1), Bundle("judge-0", 1.0), Bundle("judge-1", 1.0)]
    places = Places(find_places(bundles, {0: "n1", 1: "n2", 2: "n2"}, {"n1": "10.0.0.1", "n2": "10.0.0.2"}))
    assert json.loads(json.dumps(places.as_json())) == {
        "replay-0": "10.0.0.1",
        "judge-0": "10.0.0.2",
        "judge-1": "10.0.0.2",
    }
    assert places.describe() == "10.0.0.1: replay-0; 10.0.0.2: 2 judge"
    assert places.nodes == (Node("n1", "10.0.0.1"), Node("n2", "10.0.0.2"))
    assert places.on("n2") == ("judge-0", "judge-1")
    assert count_kinds(["generation-defender-0", "generation-attacker-1"]) == [
        "generation-defender-0",
        "generation-attacker-1",
    ]
    gone = find_places(bundles[:1], {0: "n3"}, {})
    assert gone["replay-0"].address == "unknown"
