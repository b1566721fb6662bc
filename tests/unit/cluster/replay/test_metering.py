"""The buffer's metrics say what happened in it."""

from dataclasses import replace
from pathlib import Path

from cluster.replay.metering import ReplayMetrics
from cluster.replay.rules.tally import JudgeCounts
from cluster.replay.stats import ReplayStats
from protocol.metrics import VERSIONS
from protocol.roles import PLAYERS
from tests.unit.cluster.plan.plans import parse_plan
from tests.unit.cluster.replay.buffers import Buffers, played
from tests.unit.cluster.replay.rules.test_facts import record
from tests.unit.meters import RecordingMeter


async def test_games_rows_rewards_and_staleness(tmp_path: Path, metered: RecordingMeter) -> None:
    b = Buffers(tmp_path).open(staleness=1, batch=2)
    await played(b, 2)
    await b.lease("attacker", 0, 1, 2, 0.1)
    await b.deal("w", 1, 0.0)
    await b.abandon("w", 2, "stopped")
    await b.stats()
    assert metered.counters[("games_started_total",)] == 3
    assert metered.counters[("games_total", "finished")] == 2 and metered.counters[("games_total", "stopped")] == 1
    assert metered.gauges[("games_in_flight",)] == 0
    assert metered.gauges[("games_held", "defender")] == 2 and metered.gauges[("games_held", "attacker")] == 0
    assert metered.gauges[("batch_games", "attacker")] == 2 and metered.gauges[("staleness_bound_versions",)] == 1
    learned = metered.histograms[("staleness_versions", "attacker")]
    assert learned and set(learned) == {1}, "each row of the step, once"
    assert VERSIONS[0] < 1 < VERSIONS[1], "whole numbers lie between the buckets' bounds"
    appended = metered.counters[("rows_total", "defender", "appended")]
    assert appended == metered.gauges[("rows_held", "defender")] > 0
    states = {key[1:]: n for key, n in metered.counters.items() if key[0] == "attacks_total"}
    assert sum(states.values()) > 0 and all(category in ("harmful", "benign") for _, category in states)
    assert any(key[0] == "reward" for key in metered.gauges)


async def test_a_lease_that_is_asked_for_again_is_observed_once(tmp_path: Path, metered: RecordingMeter) -> None:
    b = Buffers(tmp_path).open(staleness=1, batch=2)
    await played(b, 2)
    for _ in range(2):  # two ranks
        await b.lease("attacker", 0, 0, 2, 0.1)
    assert len(metered.histograms[("staleness_versions", "attacker")]) == 2, "one row of each of its two games"


async def test_a_learner_waits_for_games(tmp_path: Path, metered: RecordingMeter) -> None:
    b = Buffers(tmp_path).open(staleness=0, batch=2)
    assert await b.lease("defender", 0, 0, 2, 0.05) is None
    await b.stats()
    waited = {key[1:]: s for key, s in metered.counters.items() if key[0] == "waiting_seconds_total"}
    assert set(waited) == {("defender", "games")} and 0.04 < waited["defender", "games"] < 5


async def test_waiting_is_counted_under_what_is_waited_for(tmp_path: Path, metered: RecordingMeter) -> None:
    b = Buffers(tmp_path).open(staleness=0, batch=2)
    await played(b, 2)
    assert await b.deal("w", 1, 0.05) == []
    await b.stats()
    waited = {key[1:]: s for key, s in metered.counters.items() if key[0] == "waiting_seconds_total"}
    assert set(waited) == {("rollout", "staleness")} and 0.04 < waited["rollout", "staleness"] < 5


async def test_verdicts_and_flips_are_those_of_finished_games(tmp_path: Path, metered: RecordingMeter) -> None:
    b = Buffers(tmp_path).open()
    await b.deal("w", 1, 0.0)
    game = record(0)
    await b.finish("w", [game])
    await b.stats()
    assert metered.counters[("verdicts_total", "given")] == game.verdicts - game.verdicts_failed
    assert metered.counters[("comparisons_total", "flipped")] == game.disagreements
    assert metered.gauges[("judge_alarm",)] == 0


def test_where_one_order_is_judged_no_flip_is_counted() -> None:
    stats = replace(ReplayStats(), judge=JudgeCounts(verdicts=80, comparisons=20))
    told = {}
    for both_orders in (True, False):
        meter = RecordingMeter()
        ReplayMetrics(1, dict.fromkeys(PLAYERS, 2), both_orders, meter).report(stats)
        told[both_orders] = {key[1:]: n for key, n in meter.counters.items() if key[0] == "comparisons_total"}
    assert told == {True: {("agreed",): 20, ("flipped",): 0}, False: {}}
    plans = {mode: parse_plan({"mode": mode}).replay.both_orders for mode in ("default", "paper")}
    assert plans == {"default": True, "paper": False}
