"""A meter that keeps: the same values as at Ray's endpoint, by role; `moment.json` gives them back."""

import json
from pathlib import Path

import pytest

from cluster.observe.export.read import read_moment
from cluster.observe.kept import Both, Kept, Sample
from cluster.observe.moment import Newest
from protocol import metrics as m
from tests.unit.cluster.observe.run_files import STATS, plan_at
from tests.unit.meters import RecordingMeter


def test_gauges_counters_and_histograms_are_kept_by_role() -> None:
    kept, recording = Kept(), RecordingMeter()
    to = Both(recording, kept.of("driver-0"))
    to.set(m.STEP, 3, player="attacker")
    to.set(m.STEP, 4, player="attacker")
    to.set(m.LOSS, None, player="attacker")
    to.inc(m.HEARTBEATS)
    to.inc(m.HEARTBEATS, 2)
    to.inc(m.RESTARTS, 0, cause="stuck")
    to.total(m.SINK_DROPPED, 5, sink="wandb")
    to.set(m.PHASE, True, phase="busy", role="judge-0")
    for seconds in (0.004, 0.005, 0.3, 1e6):
        to.observe(m.STEP_SECONDS, seconds, player="defender")
    found = {sample.metric.name: sample for sample in kept.samples()}
    assert found["advgame_step"] == Sample(m.STEP, "driver-0", (("player", "attacker"),), 4.0)
    assert found["advgame_driver_heartbeats_total"].value == 3.0
    assert found["advgame_sink_dropped_total"].labels == (("sink", "wandb"),)
    assert found["advgame_phase"].role == "judge-0"
    histogram = found["advgame_step_seconds"]
    assert histogram.buckets == (2, 2, 2, 2, 2, 2, 3, *[3] * 7, 4) and histogram.value == pytest.approx(1e6 + 0.309)
    assert set(found) & {"advgame_loss", "advgame_worker_restarts_total"} == set(), "not known, never happened"
    assert recording.gauges[("step", "attacker")] == 4.0 and recording.counters[("driver_heartbeats_total",)] == 3.0


def test_labels_that_the_catalogue_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="player is one of"):
        Kept().of("x").set(m.STEP, 1, player="judge")


def test_a_moment_comes_back_as_it_was_and_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    plan, kept = plan_at(tmp_path / "a"), Kept()
    newest = Newest(plan, kept)
    newest.write()
    assert not plan.run_dir.moment.exists(), "nothing is known yet"
    newest.note(STATS)
    newest.note(STATS)
    kept.of("driver-0").set(m.REMAINING, float("inf"))
    newest.write()
    read = read_moment(plan.run_dir)
    again = read.kept
    assert read.time_s is not None and read.time_s > 1e9 and read.left_out == 0
    assert again.samples() == [s for s in kept.samples() if s.metric is not m.REMAINING]
    waited = {s.labels: s.value for s in again.samples() if s.metric is m.WAITING}
    assert waited[(("side", "defender"), ("cause", "games"))] == 5.0, "told twice, counted once"


def test_a_full_disk_costs_the_moment_and_not_the_run(tmp_path: Path) -> None:
    plan = plan_at(tmp_path / "a")
    newest = Newest(plan, Kept())
    newest.note(STATS)
    plan.run_dir.moment.mkdir()
    newest.write()
    assert json.dumps([path.name for path in plan.run_dir.path.iterdir() if "tmp" in path.name]) == "[]"
