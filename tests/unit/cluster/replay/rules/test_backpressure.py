"""Backpressure: when the limit grows, holds, is cut and rests. That it never blocks a run: `test_admission_schedules`."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.observe.line import line
from cluster.observe.view import RunStats, view_of
from cluster.plan.replay import plan_replay
from cluster.replay.actor import ReplayBuffer
from cluster.replay.rules.admission import Admission
from cluster.replay.rules.backpressure import MISSED_REPORTS, Backpressure, BackpressureStats, EngineLoad
from protocol.recipe import BackpressureConfig, parse_recipe
from tests.unit.cluster.plan.plans import plan_of
from tests.unit.cluster.replay.rules.test_facts import SEEDS

PLENTY = Admission(1000, "admitting 1000: there is room")


def engine(
    kv: float = 0.3, waiting: int = 0, preemptions: int = 0, worker: str = "generation-attacker-0"
) -> EngineLoad:
    return EngineLoad(worker, kv, waiting, preemptions)


class Driven:
    """A limit that starts at 32 games, reported on once a second."""

    def __init__(self, start: int = 32, **config: Any) -> None:
        self.pressure = Backpressure(BackpressureConfig(**config), start)
        self.now = 0.0
        self.report(engine(), games=0)

    def report(self, *engines: EngineLoad, games: int) -> int:
        self.now += 1.0
        self.pressure.report(engines, games, self.now)
        limit = self.pressure.limit(self.now)
        assert limit is not None
        return limit

    def why(self, games: int) -> str:
        return self.pressure.narrow(PLENTY, games, self.now).why


def test_it_starts_at_the_games_that_fit_the_engines_places() -> None:
    def start(**generation: Any) -> int | None:
        game = {"attacks": 2, "responses": 4, "in_flight": 40}
        pressure = Backpressure.from_plan(plan_replay(parse_recipe({"game": game, "generation": generation})))
        assert pressure is not None
        pressure.report([engine()], 0, 0.0)
        return pressure.limit(0.0)

    assert start(workers=1, max_num_seqs=128) == 16  # 128 places, 2 x 4 responses a game at once
    assert start(workers=4, max_num_seqs=128) == 40  # 64 would fit; a rollout worker plays no more than 40
    assert start(workers=1, max_num_seqs=2) == 1
    assert Backpressure.from_plan(plan_replay(parse_recipe({"generation": {"backpressure": None}}))) is None


def test_the_limit_bounds_the_open_games_and_never_more_than_staleness_does() -> None:
    pressure = Driven().pressure
    assert pressure.narrow(PLENTY, 30, 1.0).games == 2
    assert pressure.narrow(PLENTY, 50, 1.0).games == 0
    tighter = Admission(1, "admitting 1: ...")
    assert pressure.narrow(tighter, 30, 1.0) is tighter


def test_it_grows_only_while_games_fill_it() -> None:
    d = Driven()
    assert d.report(engine(), games=31) == 32
    assert d.report(engine(), games=32) == 40
    assert d.report(engine(), games=36) == 40
    d.pressure.narrow(PLENTY, 40, d.now)  # between two reports they were 40
    assert d.report(engine(), games=35) == 48


@pytest.mark.parametrize(
    ("full", "says"),
    [
        (engine(kv=0.91), "generation-attacker-0 has 91% of its KV cache in use, above 90%"),
        (engine(waiting=17), "generation-attacker-0 has 17 requests waiting, above 16"),
    ],
)
def test_one_engine_without_room_stops_the_growth_and_says_so(full: EngineLoad, says: str) -> None:
    d = Driven()
    other = engine(worker="generation-defender-0")
    assert d.report(other, full, games=32) == 32
    assert d.why(32) == f"admitting 0: 32 games are open of 32 that the engines bear: {says}"
    assert d.report(other, engine(kv=0.9, waiting=16), games=32) == 40


def test_an_engine_that_does_not_answer_stops_the_growth_but_not_the_cuts() -> None:
    d, other = Driven(), "generation-defender-0"
    d.report(engine(), engine(worker=other), games=0)
    assert d.report(engine(worker=other), games=32) == 32
    assert d.why(32).endswith("generation-attacker-0 does not say how full it is")
    assert d.report(engine(worker=other, preemptions=1), games=32) == 16


def test_a_preemption_cuts_to_half_of_the_games_that_were_open() -> None:
    d = Driven()
    assert d.report(engine(preemptions=3), games=20) == 10
    assert d.why(10) == (
        "admitting 0: 10 games are open of 10 that the engines bear: generation-attacker-0 preempted requests with 20 games open"
    )
    assert d.pressure.stats(d.now) == BackpressureStats(limit=10, cuts=1, preemptions=3, kv_usage=0.3, waiting=0)


def test_it_is_cut_once_until_the_cut_is_felt() -> None:
    d = Driven()
    assert d.report(engine(preemptions=1), games=32) == 16
    assert d.report(engine(preemptions=5), games=30) == 16  # games from before the cut
    assert d.report(engine(preemptions=6), games=16) == 16  # there were 30 when this second began
    assert d.report(engine(preemptions=7), games=16) == 8
    assert d.pressure.cuts == 2


def test_it_is_never_cut_below_one_game() -> None:
    d = Driven(cut=0.01)
    for count in range(1, 6):
        assert d.report(engine(preemptions=count), games=1) == 1
    assert d.pressure.narrow(PLENTY, 0, d.now).games == 1


def test_a_restarted_engine_and_one_seen_first_did_not_preempt() -> None:
    d = Driven()
    other = "generation-defender-0"
    assert d.report(engine(), engine(preemptions=50, worker=other), games=10) == 32
    assert d.report(engine(), engine(preemptions=2, worker=other), games=10) == 32  # counts anew
    assert d.report(engine(), engine(preemptions=3, worker=other), games=10) == 5


def test_without_reports_nothing_is_limited() -> None:
    pressure = Backpressure(BackpressureConfig(every_s=2.0), 4)
    pressure.report([], 0, 0.0)  # no engine answered
    assert pressure.limit(0.0) is None
    assert pressure.narrow(PLENTY, 3, 0.0) is PLENTY
    pressure.report([engine()], 0, 1.0)
    assert pressure.limit(1.0 + 2.0 * MISSED_REPORTS) == 4
    assert pressure.limit(1.1 + 2.0 * MISSED_REPORTS) is None
    pressure.report([engine()], 900, 100.0)
    assert pressure.narrow(PLENTY, 900, 100.0).games == 0


def test_it_settles_around_what_the_engines_bear() -> None:
    """Engines that preempt above 50 games: the limit saws between half of that and a step above it."""
    d, count, seen = Driven(start=4), 0, []
    games = 0
    for _ in range(200):
        games = max(d.pressure.limit(d.now) or 0, games - 6)  # at most six games end in a second
        count += games > 50
        seen.append(d.report(engine(preemptions=count), games=games))
    later = seen[50:]
    assert min(later) >= 25 and max(later) <= 50 + 8
    assert 1 < d.pressure.cuts < 40


async def test_the_replay_buffer_deals_within_the_limit_and_wakes_who_waits_when_it_grows(tmp_path: Path) -> None:
    recipe = parse_recipe({"generation": {"max_num_seqs": 16, "backpressure": {"increase": 3}}})  # 4 games fit
    buffer = ReplayBuffer(str(tmp_path), plan_replay(recipe), SEEDS)
    await buffer.report_load([engine()])
    assert len(await buffer.deal("w", 9, 0.0)) == 4
    assert (await buffer.stats()).admission.why == (
        "admitting 0: 4 games are open of 4 that the engines bear: as many as their places take without a queue"
    )
    waiting = asyncio.create_task(buffer.deal("w", 9, 5.0))
    await asyncio.sleep(0)
    await buffer.report_load([engine(kv=0.2)])
    assert len(await waiting) == 3
    stats = await buffer.stats()
    assert stats.backpressure == BackpressureStats(limit=7, kv_usage=0.2)

    view = view_of(plan_of(recipe), RunStats(stats))
    assert "7 of 7 playing" in line(view)
    assert view.limit == 7
    unlimited = view_of(plan_of(recipe), RunStats(replace(stats, backpressure=None)))
    assert "7 playing" in line(unlimited)
