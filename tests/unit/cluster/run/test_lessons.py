"""A run that teaches nothing ends, or says so where it may."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.observe.history import History
from cluster.publish.stats import StepReport
from cluster.replay.rules.tally import StateCounts
from cluster.replay.stats import GameCounts, ReplayStats, RowCounts
from cluster.run.lessons import Lessons
from cluster.run.states import RunFailed
from cluster.rundir import RunDir
from protocol.roles import PLAYERS, Player
from tests.unit.cluster.plan.plans import parse_plan

NOTHING = {p: RowCounts() for p in PLAYERS}
SOME = {p: RowCounts(appended=8, learned=8) for p in PLAYERS}


def replay(attack: dict[str, int], rows: Any = SOME) -> ReplayStats:
    return ReplayStats(True, GameCounts(finished=sum(attack.values())), rows, StateCounts(attack))


def lessons(folder: Path, limit: int | None, steps: int = 9, resumed: bool = False, **learners: Any) -> Lessons:
    recipe = {"run": {"steps": steps, "barren_steps": limit}, "learners": learners}
    return Lessons(replace(parse_plan(recipe), resumed=resumed), History(RunDir(folder)))


def reports(rows: Sequence[bool], player: Player = "attacker", first: int = 1) -> list[StepReport]:
    return [StepReport(player, n, n, 0.0, {"items": 2.0 * row}) for n, row in enumerate(rows, first)]


def test_a_run_whose_player_learns_nothing_ends_with_the_reason(tmp_path: Path) -> None:
    run = lessons(tmp_path, 2)
    run.check(reports([False]), replay({"malformed": 4}))
    with pytest.raises(RunFailed) as failed:
        run.check(reports([False], first=2), replay({"malformed": 6, "too_long": 2}))
    head, shares, *_ = str(failed.value).split("\n  ")
    assert head == "the attacker had no row to learn from in 2 steps in a row (run.barren_steps)"
    assert shares == "attacker: of 8 attacks 75 % malformed, 25 % too_long"
    assert failed.value.steps_left and str(failed.value).endswith("to change one, start a new run")


def test_the_reason_leaves_out_what_was_before_the_last_row(tmp_path: Path) -> None:
    run = lessons(tmp_path, 2)
    run.check(reports([True]), replay({"ok": 90}))
    with pytest.raises(RunFailed, match="of 4 attacks 100 % malformed"):
        run.check(reports([False, False], first=2), replay({"ok": 90, "malformed": 4}))


def test_the_reason_of_a_resumed_run_leaves_out_its_earlier_parts(tmp_path: Path) -> None:
    run = lessons(tmp_path, 2, resumed=True)
    run.check([], replay({"ok": 90}))
    with pytest.raises(RunFailed, match="of 4 attacks 100 % malformed"):
        run.check(reports([False, False], first=5), replay({"ok": 90, "malformed": 4}))


def test_a_run_shorter_than_the_window_fails_at_its_end(tmp_path: Path) -> None:
    run, seen = lessons(tmp_path, 5, steps=2), replay({"malformed": 4})
    run.check([*reports([False] * 2), *reports([True, False], "defender")], seen)
    with pytest.raises(
        RunFailed, match="nothing was learned: the attacker had no row to learn from in the whole run"
    ) as end:
        run.conclude(seen)
    assert not end.value.steps_left and str(end.value).endswith("change a setting and start a new run")
    assert run.barren == ("attacker",)


def test_without_a_limit_the_run_goes_on_and_says_so_at_its_end(tmp_path: Path) -> None:
    run, seen = lessons(tmp_path, None, steps=9), replay({"malformed": 4})
    run.check([*reports([False] * 9), *reports([False] * 9, "defender")], seen)
    run.conclude(seen)
    assert run.barren == PLAYERS and "the attacker and the defender had no row" in run.remark
    assert "75" not in run.remark and "100 % malformed" in run.remark


def test_whoever_learned_something_and_whoever_is_frozen_is_not_named(tmp_path: Path) -> None:
    run, seen = lessons(tmp_path, 5, steps=3, attacker={"train": False}), replay({"malformed": 4})
    run.check(reports([False, True, False], "defender"), seen)
    run.conclude(seen)
    assert run.barren == () and run.remark == ""


def test_a_replay_buffer_that_never_answered_says_nothing_about_rows(tmp_path: Path) -> None:
    run = lessons(tmp_path, 5, steps=1)
    run.check(reports([True]), ReplayStats())
    run.conclude(ReplayStats())
    assert run.barren == ()


def test_the_earlier_parts_of_a_run_count_at_its_end(tmp_path: Path) -> None:
    earlier = History(RunDir(tmp_path))
    earlier.add([*reports([False, True]), *reports([False, False], "defender")])
    earlier.write()
    run = lessons(tmp_path, 5, steps=3, resumed=True)
    run.check([*reports([False], first=3), *reports([False], "defender", first=3)], replay({"ok": 4}))
    with pytest.raises(RunFailed, match="nothing was learned: the defender had no row"):
        run.conclude(replay({"ok": 4}))
    rowless = lessons(tmp_path / "reports-lost", 5, steps=99, resumed=True)
    with pytest.raises(RunFailed, match="the attacker and the defender"):
        rowless.conclude(replay({"ok": 4}, NOTHING))


def skipped(first: int, *skips: float, items: float = 2.0) -> list[StepReport]:
    return [StepReport("defender", n, n, 0.0, {"items": items, "skipped": one}) for n, one in enumerate(skips, first)]


def test_steps_whose_gradient_is_not_finite_end_the_run_in_words(tmp_path: Path) -> None:
    run = Lessons(parse_plan({"run": {"skipped_steps": 3}}), History(RunDir(tmp_path)))
    some = replay({"ok": 9})
    run.check(skipped(1, 1, 1, 0, 1, 1), some)  # one between them that was applied
    run.check(skipped(6, 0, items=0.0), some)  # no row, no gradient: it says nothing
    run.check(skipped(5, 1, 1), some)  # the learner went back
    with pytest.raises(RunFailed) as failed:
        run.check(skipped(7, 1), some)
    head, remedy, _ = str(failed.value).split("\n  ")
    assert head.startswith("the gradient of the defender was not finite in 3 steps in a row (run.skipped_steps)")
    assert "smaller learners.defender.lr" in remedy and failed.value.steps_left


def test_null_lets_steps_be_skipped_for_ever(tmp_path: Path) -> None:
    run = Lessons(parse_plan({"run": {"skipped_steps": None}}), History(RunDir(tmp_path)))
    run.check(skipped(1, *[1.0] * 500), replay({"ok": 9}))
