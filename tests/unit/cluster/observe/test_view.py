"""A moment of a run: the view, what is shown of it, and the history of its steps."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from cluster.observe.history import History
from cluster.observe.metrics import PLAYER_GAUGES, ROW_STATES, RUN_GAUGES
from cluster.observe.progress import line, picture
from cluster.observe.view import PlayerView, RunStats, RunView, snapshot_of, view_of
from cluster.publish.stats import PlayerPushes, PublisherStats, StepReport
from cluster.replay.rules.admission import Admission
from cluster.replay.rules.tally import JudgeCounts, StateCounts
from cluster.replay.stats import RowCounts
from cluster.rundir import RunDir
from cluster.supervise.watchdog import blocked_edge
from protocol.roles import PLAYERS
from tests.unit.cluster.plan.plans import parse_plan
from tests.unit.cluster.run.moments import HITS, REPLAY


def test_a_moment_of_a_run_with_turns_says_whose_it_is_and_waits_for_nobody_else() -> None:
    plan = parse_plan({"learners": {"alternate_every": 5}})
    stats = RunStats(REPLAY, pool=HITS)
    view = view_of(plan, stats)
    assert (view.flip_rate, view.failure_rate, view.paused, view.cache_hits) == (0.25, 0.1, False, 7)
    snapshot = snapshot_of(plan, view, stats, 1.0)
    assert snapshot.held == {"defender": 3}  # the attacker does not take its 70 games, and should not
    assert "1 games are in flight" in blocked_edge(snapshot)
    assert "defender (its turn)" in list(picture(view).columns[0].cells)


def test_where_one_order_is_judged_no_flip_rate_is_shown() -> None:
    paper = parse_plan({"mode": "paper"})
    agreed = replace(REPLAY, judge=replace(REPLAY.judge, disagreements=0))
    assert view_of(paper, RunStats(agreed)).flip_rate is None
    pointwise = parse_plan({"judge": {"form": "pointwise"}})
    alone = replace(REPLAY, judge=JudgeCounts(verdicts=80, failed=8))
    assert view_of(pointwise, RunStats(alone)).flip_rate is None


def test_a_paused_run_says_so_in_its_line() -> None:
    quiet = replace(REPLAY, admission=Admission(0, "paused: judge failed"))
    paused = replace(quiet, alarm=replace(REPLAY.alarm, up_s=9.0))
    assert line(view_of(parse_plan({}), RunStats(paused))).endswith("; paused: judge failed")
    assert "judge failed" not in line(view_of(parse_plan({}), RunStats(quiet)))


def test_steps_without_a_measurement_are_nulls_in_the_history(tmp_path: Path) -> None:
    def step(n: int, **metrics: float) -> StepReport:
        return StepReport("defender", n, n, 1.0, {"lr": 1.0, **metrics})

    history = History(RunDir(tmp_path))
    history.add([step(1), step(2, loss=0.5)])
    history.write()
    resumed = History(RunDir(tmp_path))
    resumed.add([step(3)])
    resumed.write()
    rows = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    assert [(row["lr"], row["loss"]) for row in rows] == [(1.0, None), (1.0, 0.5), (1.0, None)]
    assert list(rows[0])[:4] == ["player", "step", "version", "time"]
    empty = PublisherStats(True, {"attacker": PlayerPushes(), "defender": PlayerPushes(step=1, metrics={"lr": 1.0})})
    assert "defender step 1/1000 v0 loss -" in line(view_of(parse_plan({}), RunStats(publisher=empty)))


def test_the_line_and_the_table_tell_what_the_games_gave() -> None:
    attack = {"ok": 3, "unfaithful": 1, "judge_failed": 2, "malformed": 9, "too_long": 4, "no_room": 1}
    rows = {"attacker": RowCounts(appended=8, evicted={"tie": 2}), "defender": RowCounts()}
    seen = RunStats(replace(REPLAY, states=StateCounts(attack, {"ok": 6}), rows=rows))
    view = view_of(parse_plan({}), seen)
    assert (view.valid_attacks, view.faithful_attacks) == (0.3, 0.75)  # 6 of 20; 3 of the 4 that were judged
    assert "attacks 30 % valid, 75 % of them faithful; ties attacker 25 %, defender -;" in line(view)
    cells = [cell for column in picture(view).columns for cell in column.cells]
    assert {"30 % valid", "75 % faithful", "25 %"} <= set(cells)
    assert len({len(list(column.cells)) for column in picture(view).columns}) == 1


def test_what_was_not_measured_is_not_told_as_a_share() -> None:
    nothing = view_of(parse_plan({}), RunStats())
    assert "attacks - valid, - of them faithful; ties attacker -, defender -;" in line(nothing)
    attack = StateCounts({"ok": 4})
    rows = {p: RowCounts(appended=8) for p in PLAYERS}
    seen = RunStats(replace(REPLAY, states=attack, rows=rows))
    unasked = {
        "game": {"faithfulness": False},
        "learners": {"attacker": {"loss": "grpo"}, "defender": {"train": False}},
    }
    assert "attacks 100 % valid, - of them faithful; ties attacker -;" in line(view_of(parse_plan(unasked), seen))
    failed = RunStats(replace(REPLAY, states=StateCounts({"judge_failed": 4, "malformed": 4})))
    assert view_of(parse_plan({}), failed).faithful_attacks is None


def test_the_history_gives_its_reports_back(tmp_path: Path) -> None:
    given = [StepReport("attacker", 1, 1, 2.5, {"items": 0.0}), StepReport("defender", 1, 0, 3.5, {"loss": 0.5})]
    history = History(RunDir(tmp_path))
    history.add(given)
    history.write()
    assert History(RunDir(tmp_path)).reports() == given == history.reports()


def test_every_gauge_is_a_number_of_the_view() -> None:
    assert all(hasattr(RunView, key) for key in RUN_GAUGES)
    assert all(hasattr(PlayerView, key) for key in PLAYER_GAUGES)
    assert all(hasattr(RowCounts, key) for key in ROW_STATES)
