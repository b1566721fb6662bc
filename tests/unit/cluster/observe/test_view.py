"""A moment of a run: the view, what is shown of it, and the history of its steps."""

import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from cluster.measure.points import HeldoutPoint
from cluster.measure.probe import ProbeResult
from cluster.observe.export.read import read_moment
from cluster.observe.history import HELDOUT, History
from cluster.observe.kept import Both, Kept
from cluster.observe.line import line, say_heldout
from cluster.observe.moment import Newest
from cluster.observe.run_metrics import RunMetrics
from cluster.observe.sinks.feed import Feed
from cluster.observe.view import RunStats, snapshot_of, view_of
from cluster.publish.stats import PlayerPushes, PublisherStats, StepReport
from cluster.replay.rules.admission import Admission
from cluster.replay.rules.tally import JudgeCounts, StateCounts
from cluster.replay.stats import RowCounts
from cluster.rundir import RunDir
from cluster.supervise.watchdog import blocked_edge
from protocol.meter import Silent, install
from protocol.metrics import BY_NAME, PROBE_DRIFT
from protocol.roles import PLAYERS, Player
from tests.unit.cluster.plan.plans import parse_plan
from tests.unit.cluster.run.moments import HITS, REPLAY
from tests.unit.meters import RecordingMeter


def test_a_moment_of_a_run_with_turns_says_whose_it_is_and_waits_for_nobody_else() -> None:
    plan = parse_plan({"learners": {"alternate_every": 5}})
    stats = RunStats(REPLAY, pool=HITS)
    view = view_of(plan, stats)
    assert (view.flip_rate, view.paused) == (0.25, False)
    snapshot = snapshot_of(plan, view, stats, 1.0)
    assert snapshot.held == {"defender": 3}  # the attacker does not take its 70 games, and should not
    assert "1 games are in flight" in blocked_edge(snapshot)
    assert ", defender (its turn) step 0" in line(view)


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
    assert "defender step 1/1000 v0 reward - staleness - loss -;" in line(
        view_of(parse_plan({}), RunStats(publisher=empty))
    )


def test_a_step_that_is_taken_again_has_one_row_that_of_the_last_attempt(tmp_path: Path) -> None:
    def step(player: Player, n: int, loss: float) -> StepReport:
        return StepReport(player, n, n, 1.0, {"loss": loss})

    def kept() -> list[tuple[str, int, float]]:
        rows = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
        return [(row["player"], row["step"], row["loss"]) for row in rows]

    history = History(RunDir(tmp_path))
    history.add([step(p, n, 0.5) for n in (1, 2, 3, 4) for p in PLAYERS])
    history.add(
        [step("defender", 3, 0.3)]
    )  # it restarted from the checkpoint of step 2: what it did after that is undone
    history.write()
    theirs = [("attacker", n, 0.5) for n in (1, 2, 3, 4)]
    assert sorted(kept()) == [*theirs, ("defender", 1, 0.5), ("defender", 2, 0.5), ("defender", 3, 0.3)]
    resumed = History(RunDir(tmp_path))
    resumed.add([step("defender", 3, 0.2), step("defender", 4, 0.1)])
    resumed.write()
    assert sorted(kept()) == [*theirs, *(("defender", n, x) for n, x in ((1, 0.5), (2, 0.5), (3, 0.2), (4, 0.1)))]

    again = pq.read_table(tmp_path / "metrics.parquet").to_pylist()  # an earlier version of this file repeated steps
    pq.write_table(pa.Table.from_pylist([again[0], *again]), tmp_path / "metrics.parquet")
    assert len(History(RunDir(tmp_path)).reports()) == 8


def score(occasion: str, step: int, version: int, success: float = 0.12, mixed: bool = False) -> HeldoutPoint:
    return HeldoutPoint(
        occasion, step, {"attacker": 1, "defender": version}, mixed, success, 0.03, 0.9, 30, 30, 0, 9.0, 2.5
    )


def test_held_out_scores_stand_in_the_defenders_rows_and_outlive_a_resume(tmp_path: Path) -> None:
    history = History(RunDir(tmp_path))
    history.add([StepReport(p, n, n, 1.0, {"loss": 0.5}) for n in (1, 2, 3) for p in PLAYERS])
    history.note_heldout(score("start", 0, 0))  # has no row
    history.note_heldout(score("step-2", 2, 1, mixed=True))
    history.note_heldout(replace(score("step-3", 3, 3), over_refusal=None))
    history.note_heldout(score("end_trained_attacker", 3, 3, success=0.99))
    history.write()
    resumed = History(RunDir(tmp_path))
    assert all(report.metrics == {"loss": 0.5} for report in resumed.reports()), "a score is no metric of a step"
    resumed.add([StepReport("defender", 5, 5, 2.0, {"loss": 0.4})])
    resumed.note_heldout(score("end", 6, 6, success=0.05))  # the report of step 6 was lost
    resumed.write()
    rows = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    assert len(rows) == 7
    assert {(row["player"], row["step"]): tuple(row[name] for name in HELDOUT) for row in rows} == {
        **{(p, n): (None,) * 5 for n in (1, 2, 3) for p in PLAYERS},
        ("defender", 2): (0.12, 0.03, 0.9, 1, True),
        ("defender", 3): (0.12, None, 0.9, 3, False),
        ("defender", 5): (0.05, 0.03, 0.9, 6, False),
    }


def test_the_moment_carries_the_scores_so_far_and_a_new_one_is_said_in_a_line() -> None:
    points = (score("start", 0, 0), score("step-40", 40, 7))
    assert view_of(parse_plan({}), RunStats(), None, points).heldout == points
    assert view_of(parse_plan({}), RunStats()).heldout == ()
    assert say_heldout(points[1]) == ("held-out at step 40, Defender v7: attack success 12 %, over-refusal 3 % (n 60)")
    moved = replace(score("step-40", 40, 7, mixed=True), over_refusal=None)
    assert "Defender v7 and others: attack success 12 %, over-refusal - (n" in say_heldout(moved)


def test_the_line_tells_what_the_games_gave() -> None:
    attack = {"ok": 3, "unfaithful": 1, "judge_failed": 2, "malformed": 9, "too_long": 4, "no_room": 1}
    rows = {"attacker": RowCounts(appended=8, evicted={"tie": 2}), "defender": RowCounts()}
    seen = RunStats(replace(REPLAY, states=StateCounts(attack, {"ok": 6}), rows=rows))
    view = view_of(parse_plan({}), seen)
    assert (view.valid_attacks, view.faithful_attacks) == (0.3, 0.75)  # 6 of 20; 3 of the 4 that were judged
    assert "attacks 30 % valid, 75 % of them faithful; ties attacker 25 %, defender -;" in line(view)


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


def test_a_history_that_cannot_be_written_is_told_and_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = StepReport("attacker", 1, 1, 2.5, {"loss": 0.5})
    history = History(RunDir(tmp_path))
    history.add([report])
    with monkeypatch.context() as m, structlog.testing.capture_logs() as logs:
        m.setattr("cluster.observe.history.write_file", MagicMock(side_effect=OSError(28, "No space left on device")))
        history.write()
    assert [(line["event"], line["errno"]) for line in logs] == [("metrics not written", 28)]
    assert not (tmp_path / "metrics.parquet").exists()
    history.write()
    assert History(RunDir(tmp_path)).reports() == [report]


def test_a_disk_that_does_not_say_what_it_has_left_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = RecordingMeter()
    install(meter)
    metrics, view = RunMetrics(tmp_path), view_of(parse_plan({}), RunStats(REPLAY))
    try:
        with monkeypatch.context() as m, structlog.testing.capture_logs() as logs:
            m.setattr("shutil.disk_usage", MagicMock(side_effect=OSError(116, "Stale file handle")))
            for _ in range(2):
                metrics.update(view, {}, {})
        assert ("disk_free_bytes",) not in meter.gauges and meter.counters[("driver_heartbeats_total",)] == 2
        assert [line["errno"] for line in logs] == [116], "once, not once a second"
        metrics.update(view, {}, {})
        assert meter.gauges[("disk_free_bytes",)] > 0
    finally:
        install(Silent())


def test_what_the_newest_judgement_of_the_probe_does_not_say_no_older_one_says_for_it(tmp_path: Path) -> None:
    meter, metrics = RecordingMeter(), RunMetrics(tmp_path)
    install(meter)
    told = []
    try:
        for probe in (
            ProbeResult(0, 8, 8, None, None, None),
            ProbeResult(20, 8, 0, 0.5, 0.125, 0.75),
            ProbeResult(40, 8, 8, None, None, None),
        ):
            metrics.update(view_of(parse_plan({}), RunStats(REPLAY), probe), {}, {})
            told.append({key: value for key, value in meter.gauges.items() if key[0].startswith("judge_probe")})
    finally:
        install(Silent())
    accuracy, changed, drift = (
        ("judge_probe_ratio", "accuracy"),
        ("judge_probe_ratio", "changed"),
        ("judge_probe_drift",),
    )
    assert told[:2] == [{}, {accuracy: 0.75, changed: 0.125, drift: 0.5}]
    assert told[2].keys() == told[1].keys() and all(math.isnan(value) for value in told[2].values())


def test_a_heldout_score_that_a_version_lacks_is_not_shown_as_its_own(tmp_path: Path) -> None:
    """A reader takes the score and the version together: at the meter, in the served file, and in a sink."""
    kept, recording, metrics, feed = Kept(), RecordingMeter(), RunMetrics(tmp_path), Feed()
    plan = replace(parse_plan({}), run_dir=RunDir(tmp_path))
    first = HeldoutPoint("step-50", 50, {"attacker": 1, "defender": 2}, False, 0.5, 0.25, 0.75, 4, 4, 0, 9.0, 1.0)
    points = (first, replace(first, occasion="step-100", versions={"attacker": 3, "defender": 4}, over_refusal=None))
    install(Both(recording, kept.of("driver-0")))
    try:
        for n in (1, 2):
            metrics.update(view_of(plan, RunStats(REPLAY), heldout=points[:n]), {}, {})
    finally:
        install(Silent())
    assert (
        recording.gauges["heldout_version", "defender"] == 4
        and recording.gauges["heldout_ratio", "attack_success"] == 0.5
    )
    assert math.isnan(recording.gauges["heldout_ratio", "over_refusal"])

    Newest(plan, kept).write()
    served = {
        sample.labels: sample.value
        for sample in read_moment(plan.run_dir).kept.samples()
        if sample.metric is BY_NAME["advgame_heldout_ratio"]
    }
    assert served == {(("score", "attack_success"),): 0.5, (("score", "benign_compliance"),): 0.75}
    kept.of("driver-0").set(PROBE_DRIFT, math.nan)
    sunk = feed.records(view_of(plan, RunStats(REPLAY), heldout=points), [], kept.samples(), 9.0)
    assert not any(math.isnan(value) for record in sunk for value in record.values.values())
