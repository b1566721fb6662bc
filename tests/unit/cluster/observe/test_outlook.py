"""Moments in their order: shares of the last seconds, the sentence made of them, and the time that is left."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.observe.outlook import Horizon
from cluster.observe.shares import Shares
from cluster.observe.view import BusySeconds, RunStats, view_of
from cluster.publish.stats import PlayerPushes, PublisherStats, StepReport
from cluster.replay.stats import ReplayStats, Wait
from protocol.roles import PLAYERS
from tests.unit.cluster.plan.plans import parse_plan


def test_a_share_speaks_of_the_last_seconds_only() -> None:
    shares = Shares(span_s=10.0)
    assert shares.of("a") is None
    for now_s in range(61):
        shares.note(float(now_s), {"a": min(now_s, 30.0), "b": now_s / 2})
    assert (shares.of("a"), shares.of("b")) == (0.0, 0.5)
    assert shares.mean(["a", "b", "unknown"]) == 0.25 and shares.mean(["unknown"]) is None


def test_a_part_that_starts_anew_has_no_share_until_it_was_seen_twice() -> None:
    shares = Shares(span_s=10.0)
    shares.note(0.0, {"a": 50.0, "b": 0.0})
    shares.note(5.0, {"a": 1.0, "b": 5.0})
    assert (shares.of("a"), shares.of("b")) == (None, 1.0)
    for now_s in (10.0, 15.0, 20.0):
        shares.note(now_s, {"a": 1.0 + now_s / 2, "b": now_s})
    assert shares.of("a") == 0.5
    shares.note(20.0, {"a": 0.0})  # the same moment again, as between two polls
    assert shares.of("a") == 0.5


def moment(now_s: float, **changes: Any) -> RunStats:
    """A run whose learners wait nine seconds of ten, for a judge that is busy all the time."""
    waits = {p: Wait(1, 0.9, 0.9 * now_s, "") for p in PLAYERS}
    replay = ReplayStats(answered=True, learner_waits=waits)
    pushes = PublisherStats(True, {p: PlayerPushes(step=2) for p in PLAYERS})
    busy = {"judge-0": now_s, "generation-attacker-0": now_s / 10}
    return replace(RunStats(replay, pushes, busy=BusySeconds(now_s, busy)), **changes)


def test_a_run_says_what_its_learners_wait_for_and_how_long_it_takes() -> None:
    plan = parse_plan({"run": {"steps": 10}})
    horizon = Horizon(plan)
    first = horizon.look(moment(100.0), [], 100.0, 1000.0)
    assert (first.bottleneck, first.eta_s, first.judge_busy) == ("", None, None)
    reports = [StepReport(p, step, step, 1000.0 + 2 * step, {}) for p in PLAYERS for step in range(1, 6)]
    second = horizon.look(moment(110.0), reports, 110.0, 1010.0)
    assert second.bottleneck == "learners wait (attacker 90 %, defender 90 %): judge pool busy 100 %"
    assert second.eta_s == 10.0 and second.judge_busy == 1.0
    assert second.engines_busy == {"attacker": pytest.approx(0.1), "defender": None}
    view = view_of(plan, moment(110.0), outlook=second)
    assert (view.bottleneck, view.eta_s, view.judge_busy) == (second.bottleneck, 10.0, 1.0)
    assert view.players["attacker"].busy == pytest.approx(0.1) and view.heldout == ()


def test_who_is_not_on_turn_or_done_waits_for_nobody() -> None:
    horizon = Horizon(parse_plan({"run": {"steps": 10}, "learners": {"alternate_every": 5}}))
    for now_s in (100.0, 110.0):
        stats = moment(now_s)
        seen = horizon.look(replace(stats, replay=replace(stats.replay, turn="defender")), [], now_s, 0.0)
    assert seen.bottleneck == "the learner waits 90 %: judge pool busy 100 %"
    done = PublisherStats(True, {p: PlayerPushes(step=10) for p in PLAYERS})
    over = horizon.look(moment(120.0, publisher=done), [], 120.0, 0.0)
    assert over.bottleneck == "nobody waits: every learner has taken its last step"


def test_before_the_replay_buffer_answers_nothing_is_said() -> None:
    assert Horizon(parse_plan({})).look(RunStats(), [], 1.0, 1.0).bottleneck == ""
