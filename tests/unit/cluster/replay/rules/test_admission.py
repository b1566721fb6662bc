"""Admission: what it says and what it refuses. That nothing deadlocks or goes stale: `test_admission_schedules`."""

from collections.abc import Callable

import pytest

from cluster.plan.replay import AdmissionNumbers, plan_admission
from cluster.replay.rules.admission import AdmissionRule, AdmissionState
from cluster.replay.rules.turns import Turn
from protocol.errors import UserError
from protocol.recipe import parse_recipe
from protocol.roles import PLAYERS


def rule(staleness: int = 2, batch: int = 32) -> AdmissionRule:
    return AdmissionRule(AdmissionNumbers(staleness, {"attacker": batch, "defender": batch}))


def test_games_are_admitted_up_to_the_bound_of_the_fuller_table() -> None:
    assert rule().bound("defender") == 96
    assert rule().admit(AdmissionState(0, {"attacker": 0, "defender": 0})).games == 96
    assert rule().admit(AdmissionState(20, {"attacker": 10, "defender": 50})).games == 26


def test_the_reason_names_the_side_the_count_and_the_limit() -> None:
    held = {"attacker": 3, "defender": 96}
    assert rule().admit(AdmissionState(0, held)).why == (  # type: ignore[arg-type]
        "admitting 0: defender has 96 unlearned games of 96 allowed at staleness 2"
    )
    flying = rule().admit(AdmissionState(90, {"attacker": 3, "defender": 6}))
    assert flying.games == 0
    assert flying.why == "admitting 0: defender has 6 unlearned games and 90 in flight of 96 allowed at staleness 2"
    some = rule().admit(AdmissionState(20, {"attacker": 10, "defender": 50}))
    assert some.why == "admitting 26: defender has 50 unlearned games and 20 in flight of 96 allowed at staleness 2"
    turn = rule().admit(AdmissionState(0, {"attacker": 32, "defender": 0}, turn=Turn("attacker", 1)))
    assert turn.why.endswith(
        "attacker has 32 unlearned games of 32 allowed at staleness 2 with 1 steps of its turn left"
    )


def test_what_comes_after_the_last_step_is_not_played() -> None:
    last = AdmissionState(10, {"attacker": 40, "defender": 32}, steps_left={"attacker": 2, "defender": 1})
    assert rule().admit(last).games == 0  # one batch is all that the defender can still learn, and it has it
    assert rule().admit(last).why == (
        "admitting 0: defender has 32 unlearned games and 10 in flight of 32 allowed at staleness 2 with 1 steps of the run left"
    )
    early = AdmissionState(10, {"attacker": 40, "defender": 32}, steps_left={"attacker": 3, "defender": 3})
    assert rule().admit(early).why.endswith("of 96 allowed at staleness 2")


def test_synchronous_admits_one_batch_and_past_policies_take_their_age_off_the_bound() -> None:
    synchronous = AdmissionRule(plan_admission(parse_recipe({"synchronous": True})))
    assert synchronous.bound("attacker") == 64
    spread = {"push": {"to": "spread"}, "generation": {"workers": 3}, "replay": {"max_staleness": 6}}
    oldest_three_behind = AdmissionRule(plan_admission(parse_recipe(spread)))
    assert oldest_three_behind.bound("attacker") == (6 + 1 - 3) * 64
    why = oldest_three_behind.admit(AdmissionState(256, dict.fromkeys(PLAYERS, 0))).why
    assert why.endswith("256 in flight of 256 allowed at staleness 6 with replicas up to 3 behind")


def test_a_learner_that_is_done_or_frozen_bounds_nothing() -> None:
    full = AdmissionState(0, {"attacker": 10**6, "defender": 0}, frozenset({"attacker"}))
    assert rule().admit(full).games == 96
    alone = AdmissionRule(AdmissionNumbers(0, {"attacker": 8, "defender": 8}, ("defender",)))
    assert alone.admit(AdmissionState(0, {"attacker": 10**6, "defender": 5})).games == 3
    done = rule().admit(AdmissionState(0, {"attacker": 0, "defender": 0}, frozenset(PLAYERS)))
    assert (done.games, done.why) == (0, "admitting 0: every learner has taken its last step")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: rule(staleness=-1), "replay.max_staleness: -1 is below 0"),
        (
            lambda: AdmissionNumbers(2, {"attacker": 1, "defender": 1}, oldest_replica=3),
            "replay.max_staleness: 2 is below the 3 versions that a replica may be behind with push.to spread",
        ),
        (lambda: rule(batch=0), "learners.attacker.batch_games: 0 is below 1"),
        (lambda: AdmissionNumbers(1, {"attacker": 1, "defender": 1}, ()), "learners: 0 players learn"),
    ],
)
def test_settings_that_would_deadlock_are_refused(build: Callable[[], object], says: str) -> None:
    with pytest.raises(UserError) as refused:
        build()
    assert says in str(refused.value) and "\n" not in str(refused.value)
