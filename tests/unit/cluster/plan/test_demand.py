"""What a run needs at the same time, and how it is told that it is not there."""

from typing import Any

import pytest

from cluster.plan.demand import ENGINE_GIB, Models, demand_of, weights_gib
from cluster.plan.placement import place
from cluster.plan.shortfall import Free, check_room
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from protocol.roles import PLAYERS
from tests.unit.cluster.plan.plans import parse_plan


def memory_of(recipe: Recipe) -> float:
    return demand_of(recipe, place(recipe)).memory_gib


def test_demand_counts_every_part() -> None:
    recipe = parse_recipe(
        {
            "generation": {"workers": 2, "cpus_per_worker": 1.0, "kv_cache_gib": 2.0},
            "judge": {"workers": 3, "cpus_per_worker": 0.5},
            "learners": {
                "attacker": {"ranks": 4, "cpus_per_rank": 1.0},
                "defender": {"ranks": 1, "gpus_per_rank": 1.0},
            },
        }
    )
    demand = demand_of(recipe, place(recipe))
    assert demand.cpus == pytest.approx(2 * 0.05 + 4 * 1.0 + 3 * 0.5 + 0.1 + 4 * 1.0 + 0.25)
    assert demand.gpus == 1.0
    assert len(place(recipe).bundles) == 2 + 4 + 3 + 1
    assert demand.memory_gib > 4 * 2.0


def test_a_frozen_player_needs_no_ranks_and_a_judge_of_its_own_needs_gpus() -> None:
    recipe = parse_recipe(
        {
            "generation": {"gpus_per_worker": 1.0},
            "judge": {"kind": "lm", "workers": 3, "gpus_per_worker": 2.0, "engine": {"tensor_parallel": 2}},
            "learners": {
                "attacker": {"train": False, "gpus_per_rank": 1.0},
                "defender": {"ranks": 4, "gpus_per_rank": 1.0},
            },
        }
    )
    demand = demand_of(recipe, place(recipe))
    assert demand.gpus == 2 + 3 * 2 + 4
    assert [b.gpus for b in place(recipe).bundles if b.gpus] == [1.0, 1.0, 2.0, 2.0, 2.0]


def test_an_lm_judges_engines_take_memory_and_a_rule_judge_takes_none() -> None:
    engine = {"kv_cache_gib": 0.25}
    judge = {"kind": "lm", "workers": 2, "engine": engine}
    more = memory_of(parse_recipe({"judge": judge})) - memory_of(Recipe())
    assert more == pytest.approx(2 * (ENGINE_GIB + 0.25))


GIB = 2**30
BILLION = dict.fromkeys(PLAYERS, float(GIB))  # two to the thirtieth parameters each: a byte of each is a GiB


@pytest.mark.parametrize(
    ("values", "gib"),
    [
        # An engine each in float32; of the Defender's learner: compute 2, Adam 12, EMA 4; two versions in float32.
        ({"learners": {"attacker": {"train": False}}}, 4 + 4 + 18 + 2 * 4),
        ({"learners": {"attacker": {"train": False}, "defender": {"lora": {}}}}, 4 + 4 + 2 + 2 * 4),
        (
            {"generation": {"gpus_per_worker": 1.0}, "learners": {key: {"gpus_per_rank": 1.0} for key in PLAYERS}},
            2 * 2 * 4,
        ),
        (
            {
                "generation": {"gpus_per_worker": 1.0, "workers": 3},
                "learners": {key: {"gpus_per_rank": 1.0, "offload": "optimizer"} for key in PLAYERS},
            },
            2 * (2 * 4 + 12),
        ),
        ({"generation": {"workers": 3, "dtype": "bfloat16"}}, 2 * (3 * 2 + 18 + 2 * 4)),
    ],
)
def test_weights_are_counted_in_memory(values: dict[str, Any], gib: float) -> None:
    """R36: a model that does not fit was found by the kernel, after minutes of loading."""
    assert weights_gib(parse_recipe(values), Models(BILLION, dict.fromkeys(PLAYERS, 4))) == pytest.approx(gib)


def test_a_model_that_the_memory_does_not_hold_is_refused_by_its_folders_size() -> None:
    weights = {f"/models/{player}": 15 * GIB for player in PLAYERS}
    plan = parse_plan({}, weight_bytes=weights)
    assert plan.demand.memory_gib > parse_plan({}).demand.memory_gib + 2 * 15
    with pytest.raises(UserError, match="GiB of memory, this machine has 20"):
        check_room(plan.demand, Free(64, 0, 20.0, "this machine"))


def test_a_judges_weights_are_counted_as_they_are_stored() -> None:
    judged = parse_recipe({"judge": {"kind": "lm", "workers": 2}})
    assert weights_gib(judged, Models(judge_bytes=3 * GIB)) == pytest.approx(6)


@pytest.mark.parametrize(
    ("cpus", "memory", "message"), [(0.5, 64.0, "CPUs at once, this machine has 0.5 free"), (64, 0.5, "GiB of memory")]
)
def test_too_small_a_machine_is_refused_in_words(cpus: float, memory: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_room(demand_of(Recipe(), place(Recipe())), Free(cpus, 0, memory, "this machine"))
