"""Who learns nothing: found by steps, whatever the polling, and never on a guess."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.publish.stats import StepReport
from cluster.supervise.barren import BarrenSteps, has_row
from protocol.roles import PLAYERS, Player

LIMIT = 3
ROWS = st.lists(st.booleans(), min_size=1, max_size=30)


def reports(rows: Sequence[bool], player: Player = "attacker", first: int = 1) -> list[StepReport]:
    return [StepReport(player, n, n, 0.0, {"items": 2.0 * row}) for n, row in enumerate(rows, first)]


def fires(policy: BarrenSteps, taken: Sequence[StepReport]) -> list[tuple[int, tuple[Player, ...]]]:
    """After which of the reports somebody is found, and who."""
    return [(k, found) for k, report in enumerate(taken) if (found := policy.note([report]))]


@given(ROWS)
def test_a_window_is_barren_exactly_when_it_is_full_of_steps_without_a_row(rows: list[bool]) -> None:
    found = [k for k, _ in fires(BarrenSteps(LIMIT, PLAYERS), reports(rows))]
    assert found == [k for k in range(len(rows)) if k + 1 >= LIMIT and not any(rows[k + 1 - LIMIT : k + 1])]


@given(ROWS, st.lists(st.integers(1, 7), min_size=30, max_size=30))
def test_what_is_found_does_not_depend_on_how_many_reports_come_at_once(rows: list[bool], sizes: list[int]) -> None:
    policy, queue, found = BarrenSteps(LIMIT, PLAYERS), reports(rows), False
    for size in sizes:
        found |= bool(policy.note(queue[:size]))
        queue = queue[size:]
    assert found == bool(fires(BarrenSteps(LIMIT, PLAYERS), reports(rows)))


@given(ROWS, ROWS, st.data())
def test_a_learner_that_goes_back_is_judged_by_what_it_took_last(
    before: list[bool], after: list[bool], data: st.DataObject
) -> None:
    back = data.draw(st.integers(1, len(before) + 1))  # the step that comes again
    policy = BarrenSteps(LIMIT, PLAYERS)
    policy.note(reports(before))
    found = [k for k, _ in fires(policy, reports(after, first=back))]
    last = [*before[: back - 1], *after]
    ends = range(back - 1, len(last))
    assert found == [n - back + 1 for n in ends if n + 1 >= LIMIT and not any(last[n + 1 - LIMIT : n + 1])]


def test_players_are_counted_apart_and_one_that_waits_takes_no_steps() -> None:
    policy = BarrenSteps(LIMIT, PLAYERS)
    turn, other = reports([False] * 2), reports([True] * 9, "defender")
    assert policy.note([*turn, *other]) == ()
    assert policy.note(reports([False], first=3)) == ("attacker",)
    assert policy.note([*reports([False] * 3, first=4), *reports([False] * 3, "defender", first=10)]) == PLAYERS


def test_without_a_limit_no_window_is_barren() -> None:
    assert BarrenSteps(None, PLAYERS).note(reports([False] * 99)) == ()


def test_a_step_whose_report_is_lost_may_have_had_a_row() -> None:
    policy = BarrenSteps(LIMIT, PLAYERS)
    assert policy.note([*reports([False] * 2), *reports([False] * 2, first=4)]) == ()
    assert policy.note(reports([False], first=6)) == ("attacker",)


def test_a_resumed_run_gets_a_whole_window_again() -> None:
    earlier = reports([False] * 3)
    policy = BarrenSteps(LIMIT, PLAYERS, earlier=earlier)
    assert fires(policy, reports([False] * 3, first=4)) == [(2, ("attacker",))]
    again = BarrenSteps(LIMIT, PLAYERS, earlier=earlier)  # from the model folder: there was no checkpoint yet
    assert fires(again, reports([False] * 3)) == [(2, ("attacker",))]


def test_a_player_without_a_judge_has_nothing_left_to_prefer_once_all_is_valid() -> None:
    assert BarrenSteps(LIMIT, PLAYERS, ["attacker"]).note(reports([True] + [False] * 9)) == ()
    assert BarrenSteps(LIMIT, PLAYERS, ["attacker"]).note(reports([False] * 3)) == ("attacker",)
    assert BarrenSteps(LIMIT, PLAYERS, ["defender"]).note(reports([True] + [False] * 9)) == ("attacker",)


LEARNED = {"attacker": 4, "defender": 4}


@given(ROWS)
def test_a_whole_run_is_barren_if_no_step_of_it_had_a_row(rows: list[bool]) -> None:
    policy = BarrenSteps(None, ["attacker"])
    policy.note(reports(rows))
    assert policy.find_barren(LEARNED, len(rows)) == (() if any(rows) else ("attacker",))
    assert policy.find_barren(LEARNED, len(rows) + 1) == (), "the last report was lost"


def test_the_whole_run_has_its_earlier_parts_and_what_the_replay_buffer_counted() -> None:
    resumed = BarrenSteps(LIMIT, PLAYERS, earlier=[*reports([False, True]), *reports([False] * 4, "defender")])
    resumed.note(reports([False] * 2, first=3))
    assert resumed.find_barren(LEARNED, 4) == ("defender",)
    lossy = BarrenSteps(LIMIT, PLAYERS)
    lossy.note(reports([False] * 2))
    assert lossy.find_barren({"attacker": 0, "defender": 4}, 9) == ("attacker",)  # without every report


def test_an_old_answer_of_the_replay_buffer_does_not_gainsay_a_report() -> None:
    policy = BarrenSteps(LIMIT, PLAYERS)
    policy.note([*reports([False, True]), *reports([True, False], "defender")])
    assert policy.find_barren({"attacker": 0, "defender": 0}, 2) == ()


@pytest.mark.parametrize(
    ("metrics", "row"),
    [
        ({"items": 0.0}, False),
        ({"items": 2.0}, True),
        ({"items": 8.0, "advantage_std": 0.0}, False),  # GRPO on rewards that are all the same: every gradient is 0
        ({"items": 8.0, "advantage_std": 0.1}, True),
        ({"items": 0.0, "advantage_std": 0.1}, False),  # all of them penalised, with `quirks.grpo_penalised: paper`
    ],
)
def test_a_step_had_a_row_if_a_gradient_came_of_it(metrics: dict[str, float], row: bool) -> None:
    assert has_row(metrics) is row
