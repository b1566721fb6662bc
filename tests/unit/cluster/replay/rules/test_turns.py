"""Whose turn it is, from the steps that are executed."""

import pytest

from cluster.plan.replay import plan_replay
from cluster.replay.rules.table import Table
from cluster.replay.rules.turns import Roster, Standing, Turn
from protocol.recipe import parse_recipe
from protocol.roles import PLAYERS, Player

FIVES = Roster(PLAYERS, steps=12, every=5)


def standing(attacker: int, defender: int, *finished: Player) -> Standing:
    return Standing({"attacker": attacker, "defender": defender}, frozenset(finished))


@pytest.mark.parametrize(
    ("now", "turn"),
    [
        (standing(0, 0), Turn("attacker", 5)),
        (standing(4, 0), Turn("attacker", 1)),
        (standing(5, 0), Turn("defender", 5)),
        (standing(5, 4), Turn("defender", 1)),
        (standing(5, 5), Turn("attacker", 5)),
        (standing(10, 10), Turn("attacker", 2)),  # the last turn is what is left of the run
        (standing(12, 10, "attacker"), Turn("defender", 2)),
        (standing(3, 2), Turn("attacker", 2)),  # the attacker restarted from an older checkpoint: its turn again
        (standing(7, 2), Turn("defender", 3)),  # so did the defender
        (standing(3, 12, "defender"), Turn("attacker", 9)),  # alone, to the end
        (standing(12, 12, *PLAYERS), None),
    ],
)
def test_turns_follow_from_the_steps_executed(now: Standing, turn: Turn | None) -> None:
    assert FIVES.turn(now) == turn


def test_a_game_counts_for_the_player_on_turn() -> None:
    assert [FIVES.refusal(p, standing(4, 0)) for p in PLAYERS] == [None, "turn"]
    assert [FIVES.refusal(p, standing(5, 0)) for p in PLAYERS] == ["turn", None]
    both = Roster(PLAYERS, steps=12)
    assert both.turn(standing(5, 0)) is None and [both.refusal(p, standing(5, 0)) for p in PLAYERS] == [None, None]


def test_a_frozen_player_never_learns() -> None:
    roster = Roster.from_plan(plan_replay(parse_recipe({"learners": {"attacker": {"train": False}}})))
    assert roster.learns == ("defender",)
    assert [roster.refusal(p, standing(0, 0)) for p in PLAYERS] == ["frozen", None]


def test_a_player_at_its_last_step_is_done_before_it_says_so() -> None:
    tables: dict[Player, Table[None]] = {p: Table(1, 10) for p in PLAYERS}
    tables["attacker"].acknowledge(12)
    assert FIVES.standing(tables) == standing(12, 0, "attacker")
