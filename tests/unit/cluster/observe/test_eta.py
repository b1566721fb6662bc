"""The time left: the slower player's recent pace, robust against single long steps, unknown before there are enough."""

import pytest

from cluster.observe.eta import Pace, describe_left
from cluster.publish.stats import StepReport
from protocol.roles import Player


def steps(player: Player, *times: float, first: int = 1) -> list[StepReport]:
    return [StepReport(player, first + k, first + k, time_s, {}) for k, time_s in enumerate(times)]


def test_the_slower_player_counts() -> None:
    pace = Pace(("attacker", "defender"), 10, turns=False)
    pace.note(steps("attacker", 0.0, 2.0, 4.0, 6.0) + steps("defender", 0.0, 5.0, 10.0, 15.0))
    assert pace.seconds_left(15.0) == 6 * 5.0
    assert pace.seconds_left(18.0) == 6 * 5.0 - 3.0  # of the step under way
    assert pace.seconds_left(99.0) == 5 * 5.0  # it is late, and expected any moment


def test_players_that_take_turns_take_the_sum_of_their_times() -> None:
    pace = Pace(("attacker", "defender"), 10, turns=True)
    pace.note(steps("attacker", 0.0, 2.0, 4.0, 6.0) + steps("defender", 6.0, 9.0, 12.0, 15.0))
    assert pace.seconds_left(6.0) == 6 * 2.0 + 6 * 3.0


def test_nothing_is_said_before_every_learner_has_taken_some_steps() -> None:
    pace = Pace(("attacker", "defender"), 10, turns=False)
    assert pace.seconds_left(0.0) is None
    pace.note(steps("attacker", 0.0, 1.0, 2.0, 3.0) + steps("defender", 0.0, 1.0, 2.0))
    assert pace.seconds_left(3.0) is None
    pace.note(steps("defender", 3.0, first=4))
    assert pace.seconds_left(3.0) == 6.0


def test_single_long_steps_and_a_restart_do_not_move_the_pace() -> None:
    pace = Pace(("defender",), 10, turns=False)
    pace.note(steps("defender", 0.0, 1.0, 2.0, 62.0, 63.0, 64.0))
    pace.note(steps("defender", 200.0, 201.0, first=5))  # the group went back to step 4
    assert pace.seconds_left(201.0) == 4 * 1.0


def test_old_steps_are_forgotten_and_frozen_players_not_waited_for() -> None:
    pace = Pace(("defender",), 200, turns=False)
    pace.note(steps("attacker", 1.0))
    slow = [10.0 * k for k in range(30)]
    fast = [290.0 + k for k in range(1, 61)]
    pace.note(steps("defender", *slow, *fast))
    assert pace.seconds_left(350.0) == (200 - 90) * 1.0


def test_a_run_whose_steps_are_taken_has_nothing_left() -> None:
    pace = Pace(("defender",), 4, turns=False)
    pace.note(steps("defender", 0.0, 1.0, 2.0, 3.0))
    assert pace.seconds_left(9.0) == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.0, "nearly done"),
        (40.4, "about 40 s left"),
        (240.0, "about 4 min left"),
        (3590.0, "about 1 h left"),
        (7810.0, "about 2 h 10 min left"),
    ],
)
def test_in_words(seconds: float | None, words: str) -> None:
    assert describe_left(seconds) == words
