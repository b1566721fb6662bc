"""What a run needs at the same time, and how it is told that it is not there."""

import pytest

from cluster.plan.demand import ENGINE_GIB, demand_of
from cluster.plan.placement import place
from cluster.plan.shortfall import Free, check_room
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe


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


@pytest.mark.parametrize(
    ("cpus", "memory", "message"), [(0.5, 64.0, "CPUs at once, this machine has 0.5 free"), (64, 0.5, "GiB of memory")]
)
def test_too_small_a_machine_is_refused_in_words(cpus: float, memory: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_room(demand_of(Recipe(), place(Recipe())), Free(cpus, 0, memory, "this machine"))
