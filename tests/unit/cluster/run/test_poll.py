"""Asking the parts: last answers stand, a dead part ends the run, and a resumed run waits for the weights."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
import structlog
from rich.console import Console

import cluster.run.answers as answers
import cluster.run.start as start
from actors.generation import GenerationStats
from cluster.observe.history import History
from cluster.observe.progress import Progress
from cluster.observe.view import RunStats
from cluster.plan.plan import Plan
from cluster.publish.stats import (
    PhaseTimes,
    PlayerPushes,
    PublisherStats,
    PushTimes,
    StepReport,
    WarmStart,
    WorkerState,
)
from cluster.replay.stats import GameCounts, ReplayStats
from cluster.run.poll import Poll, RisingSum, merge_missed
from cluster.run.pools import RolloutWorkerStats
from cluster.run.start import catch_up, list_served
from cluster.run.states import RunFailed
from cluster.run.supervision import Fitness
from cluster.rundir import RunDir
from cluster.waiting import Note
from judge.stats import JudgeStats, PoolStats
from tests.unit.cluster.plan.plans import parse_plan
from tests.unit.workers import Remote

Say = Callable[[], Awaitable[Any]]


def says(value: Any) -> Say:
    """A method that answers so, or raises it."""

    async def answer() -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return answer


def handle(**methods: Any) -> Any:
    return SimpleNamespace(**{name: Remote(says(value)) for name, value in methods.items()})


def parts(**changes: Any) -> Any:
    generator = handle(stats=GenerationStats(tokens=5, busy_s=2.0))
    whole = {
        "replay": handle(stats=ReplayStats(answered=True, games=GameCounts(started=3))),
        "publisher": handle(
            stats=PublisherStats(True, holder="one"), drain_metrics=[StepReport("defender", 1, 1, 9.0, {"loss": 0.5})]
        ),
        "generators": {"attacker": [generator], "defender": [generator, generator]},
        "judges": [handle(stats=JudgeStats(1, 4, 0)), handle(stats=JudgeStats(2, 8, 1, busy_s=7.5))],
        "register": lambda player, newest: None,
        "rollouts": [
            handle(stats=RolloutWorkerStats(pool=PoolStats(cache_hits=7), missed={"judge-0": 2, "judge-1": 1})),
            handle(stats=RolloutWorkerStats(pool=PoolStats(cache_hits=1), missed={"judge-0": 0, "judge-1": 5})),
        ],
    }
    return SimpleNamespace(**(whole | changes))


AWAY = ray.exceptions.ActorUnavailableError("restarting", None)
DEAD = ray.exceptions.ActorDiedError()


async def test_the_last_answer_stands_while_a_part_is_away(tmp_path: Path) -> None:
    poll = Poll(History(RunDir(tmp_path)))
    assert poll.stats == RunStats() and not poll.stats.replay.answered
    assert [report.step for report in await poll.ask(parts())] == [1]
    await poll.ask_workers(parts())
    before = poll.stats
    assert before.tokens == 15
    assert before.judges == JudgeStats(3, 12, 1, busy_s=7.5) and before.pool == PoolStats(cache_hits=8)
    assert poll.missed() == {"judge-0": 2, "judge-1": 5}
    assert before.busy.of == {
        "generation-attacker-0": 2.0,
        "generation-defender-0": 2.0,
        "generation-defender-1": 2.0,
        "judge-0": 0.0,
        "judge-1": 7.5,
    }
    gone = handle(stats=AWAY)
    await poll.ask_workers(parts(judges=[gone, handle(stats=JudgeStats(busy_s=9.0))]))
    assert poll.stats.busy.of.keys() == before.busy.of.keys() - {"judge-0"}, "nobody answers for a worker that is away"
    assert poll.stats.busy.at_s >= before.busy.at_s

    away = handle(stats=AWAY, drain_metrics=AWAY)
    again = handle(stats=RolloutWorkerStats(pool=PoolStats(cache_hits=3)))
    assert await poll.ask(parts(replay=away, publisher=away, rollouts=[away, away])) == []
    assert (poll.stats.replay, poll.stats.publisher, poll.stats.pool) == (before.replay, before.publisher, before.pool)
    await poll.ask(parts(rollouts=[away, again]))
    assert poll.stats.pool == PoolStats(cache_hits=10) and poll.missed() == {"judge-0": 2, "judge-1": 1}


async def test_a_restarted_publisher_is_told_its_workers_and_no_count_falls(tmp_path: Path) -> None:
    poll = Poll(History(RunDir(tmp_path)))
    worker = WorkerState("attacker-0", "healthy", 7, "")
    times = PushTimes(4, 4, 2.0, 0.2, 3.0, 0.3, {"load": PhaseTimes(1.0, 1.0)})
    mine = PlayerPushes(7, 1, 6, 1, 9, {"loss": 1.0}, times, {"died": 1}, (worker,), WarmStart(3, 3, 4.0, 1.0))
    told: list[tuple[str, int]] = []

    async def see(holder: str, pushes: PlayerPushes) -> None:
        stats = PublisherStats(True, {"attacker": pushes, "defender": PlayerPushes(workers=(worker,))}, holder)
        publisher = handle(stats=stats, drain_metrics=[])
        await poll.ask(parts(publisher=publisher, register=lambda player, newest: told.append((player, newest))))

    await see("one", mine)
    assert told == []
    await see("two", PlayerPushes())
    assert told == [("attacker", 7)], "it waits for the version that it has lost"
    found = poll.stats.publisher.players["attacker"]
    assert (found.newest, found.step, found.versions_pushed, found.warm.done) == (7, 9, 6, 3)
    again = PushTimes(4, 4, 2.0, 0.2, 1.0, 0.1, {"load": PhaseTimes(3.0, 3.0)})
    await see("two", PlayerPushes(8, 7, 2, 0, 10, {"loss": 0.5}, again, {"died": 2}, (worker,)))
    found = poll.stats.publisher.players["attacker"]
    assert (found.newest, found.versions_pushed, found.superseded, found.step) == (8, 7, 1, 10), (
        "7 was handed over twice"
    )
    assert (found.evictions, found.pushes.count, found.pushes.mean_total_s) == ({"died": 3}, 8, 2.0)
    assert found.pushes.phases == {"load": PhaseTimes(3.0, 2.0)} and len(told) == 1
    await see("three", PlayerPushes())
    assert poll.stats.publisher.players["attacker"].versions_pushed == 7 and told[1:] == [("attacker", 8)]


async def test_a_worker_that_hangs_holds_no_look_up_and_one_that_is_dead_ends_the_run_at_the_next(
    tmp_path: Path,
) -> None:
    poll, asked = Poll(History(RunDir(tmp_path))), list[str]()

    async def hang() -> None:
        asked.append("judge-0")
        await asyncio.Event().wait()

    hung = SimpleNamespace(stats=Remote(hang))
    for _ in range(3):
        async with asyncio.timeout(1.0):
            poll.begin_ask_workers(parts(judges=[hung]))
            assert len(await poll.ask(parts())) == 1
    assert asked == ["judge-0"], "it is asked again once it has answered, or its time is over"
    await poll.ask_workers(parts())
    newest = poll.stats
    await poll.close(parts())
    assert poll.stats == newest

    poll.begin_ask_workers(parts(judges=[handle(stats=DEAD)]))
    assert poll._asking is not None
    await asyncio.wait([poll._asking])
    with pytest.raises(RunFailed, match=r"judge-0.* died and is not restarted: "):
        poll.begin_ask_workers(parts())


async def test_an_older_answer_does_not_take_the_place_of_a_newer_one(tmp_path: Path) -> None:
    poll, asked, go = Poll(History(RunDir(tmp_path))), asyncio.Event(), asyncio.Event()

    async def late() -> JudgeStats:
        asked.set()
        await go.wait()
        return JudgeStats(busy_s=1.0)

    poll.begin_ask_workers(parts(judges=[SimpleNamespace(stats=Remote(late))]))
    await asked.wait()
    await poll.ask_workers(parts(judges=[handle(stats=JudgeStats(busy_s=9.0))]))
    go.set()
    assert poll._asking is not None
    await poll._asking
    assert poll.stats.busy.of["judge-0"] == 9.0


async def test_parts_that_hang_are_waited_for_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_S", 0.5)
    hung: Any = SimpleNamespace(stats=Remote(asyncio.Event().wait), drain_metrics=Remote(asyncio.Event().wait))
    async with asyncio.timeout(1.4):
        assert (
            await Poll(History(RunDir(tmp_path))).ask(parts(replay=hung, publisher=hung, rollouts=[hung, hung])) == []
        )


def test_what_supervision_finds_is_among_the_statistics(tmp_path: Path) -> None:
    poll = Poll(History(RunDir(tmp_path)))
    poll.note_fitness(Fitness((1, 2), {"attacker": (0, 1), "defender": (3, 3)}, {"stuck": 4}))
    assert poll.stats.healthy_judges == (1, 2) and poll.stats.replaced == {"stuck": 4}
    assert poll.stats.healthy_generators == {"attacker": (0, 1), "defender": (3, 3)}


def test_of_several_callers_misses_the_largest_count_is_the_workers() -> None:
    assert merge_missed([]) == {} and merge_missed([{"a": 1, "b": 3}, {"a": 2}]) == {"a": 2, "b": 3}


async def test_an_actor_that_is_too_busy_to_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_S", 0.01)
    assert await answers.answer_or("replay-0", asyncio.sleep(9.0), 7) == 7


async def test_a_part_that_is_dead_for_good_ends_the_run_and_what_was_reported_is_written(tmp_path: Path) -> None:
    poll = Poll(History(RunDir(tmp_path)))
    await poll.ask(parts())
    dead = handle(stats=DEAD, drain_metrics=DEAD)
    with pytest.raises(RunFailed, match=r"^publisher-0 died and is not restarted: .*; see logs/publisher-0\.log$"):
        await poll.ask(parts(publisher=dead))
    await poll.close(parts(publisher=dead))
    assert [row["loss"] for row in pq.read_table(tmp_path / "metrics.parquet").to_pylist()] == [0.5]


async def test_a_dead_parts_message_is_in_no_line(tmp_path: Path) -> None:
    text = "Traceback (most recent call last):\n  File \"/x/segments.py\", line 7, in read\n    row[k]\nKeyError: 'an attack'"
    task = ray.exceptions.RayTaskError("__init__", text, KeyError("an attack"), "r", 1, "10.0.0.7", actor_id="a")
    dead = handle(stats=ray.exceptions.ActorDiedError(task))
    with structlog.testing.capture_logs() as logs, pytest.raises(RunFailed) as told:
        await Poll(History(RunDir(tmp_path))).ask(parts(replay=dead))
    assert str(told.value) == (
        "replay-0 died and is not restarted: KeyError at /x/segments.py:7 read; see logs/replay-0.log"
    )
    (entry,) = logs
    assert entry["trail"][-2:] == ["/x/segments.py:7 read", "KeyError"]
    assert "exc_info" not in entry and "an attack" not in str(entry)


def served(version: int) -> PublisherStats:
    worker = WorkerState("defender-0", "healthy", version, "")
    return PublisherStats(True, {"attacker": PlayerPushes(), "defender": PlayerPushes(newest=4, workers=(worker,))})


async def test_a_worker_that_does_not_start_is_named_with_its_log() -> None:
    said: Any = handle(start=ray.exceptions.RayTaskError("start", "ValueError: no room on the card", ValueError()))
    with pytest.raises(
        RunFailed, match=r"^generation-attacker-3 did not start: .*no room.*; see logs/generation-attacker-3\.log$"
    ):
        await start._start("generation-attacker-3", said, 5.0, "generation.start_deadline_s")
    with pytest.raises(
        RunFailed, match=r"^judge-0 did not start within 0 s \(judge\.engine\.start_deadline_s\); see logs/judge-0"
    ):
        await start._start("judge-0", handle(start=TimeoutError()), 0.01, "judge.engine.start_deadline_s")


async def test_a_publisher_that_does_not_answer_is_named_and_not_waited_for_for_ever() -> None:
    recipe = {"generation": {"start_deadline_s": 0.05}}
    made: Any = SimpleNamespace(
        registered=[asyncio.Event().wait()], generators_by_role=lambda player: {}, judges_by_role={}, learners={}
    )
    with pytest.raises(RunFailed, match=r"^publisher-0 did not start within 0 s \(generation\.start_deadline_s\)"):
        await start.start_engines(made, parse_plan(recipe), Progress(Console(file=StringIO())))
    made.registered = [says(DEAD)()]
    with pytest.raises(RunFailed, match=r"^publisher-0 did not start: .*; see logs/publisher-0\.log$"):
        await start.start_engines(made, parse_plan(recipe), Progress(Console(file=StringIO())))


async def test_who_waits_for_the_engines_is_told_how_many_serve() -> None:
    told: list[str] = []

    class Told(Progress):
        @contextlib.contextmanager
        def wait(self, what: str, usual: str = "") -> Iterator[Note]:
            yield told.append

    later = asyncio.Event()
    slow = SimpleNamespace(start=Remote(later.wait))
    made: Any = SimpleNamespace(
        registered=[],
        generators_by_role=lambda p: {
            "attacker": {"a": handle(start=0)},
            "defender": {"b": handle(start=0), "c": slow},
        }[p],
        judges_by_role={"judge-0": handle(start=None)},
        learners={},
    )
    starting = asyncio.create_task(start.start_engines(made, parse_plan({}), Told(Console(file=StringIO()))))
    while len(told) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert told[0] == "0 of 3 engines serve, 0 of 1 judge workers serve"
    assert told[-1] == "2 of 3 engines serve, 1 of 1 judge workers serve" and not starting.done()
    later.set()
    await starting
    assert told[-1] == "3 of 3 engines serve, 1 of 1 judge workers serve"


class FakeWatch:
    """A `Watch` that sees one more answer of the publisher at each look; the last one stays."""

    def __init__(self, *seen: PublisherStats) -> None:
        self.poll = SimpleNamespace(stats=RunStats(ReplayStats(answered=True, versions={"attacker": 0, "defender": 3})))
        self._seen = list(seen)

    async def ask_and_show(self, _: Any) -> None:
        now = self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]
        self.poll.stats = RunStats(self.poll.stats.replay, now)

    async def keep_stall(self, _: Any) -> str:
        return "; stacks and GPU use are in stall-now/"


@pytest.fixture
def no_learner_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "POLL_S", 0.001)
    monkeypatch.setattr(start, "check_learners", lambda parts: None)


@pytest.mark.usefixtures("no_learner_ended")
async def test_a_resumed_run_plays_when_the_pushed_version_is_on_every_worker(tmp_path: Path) -> None:
    watch: Any = FakeWatch(PublisherStats(True), served(-1), served(0), served(4))
    await catch_up(parts(), parse_plan({"run": {"stall_s": 20.0}}, tmp_path), watch, quiet())
    assert list_served(watch.poll.stats) == {"defender"}  # the attacker never pushed, and is not waited for


@pytest.mark.usefixtures("no_learner_ended")
async def test_resumed_weights_that_reach_nobody_end_the_run(tmp_path: Path) -> None:
    watch: Any = FakeWatch(served(0))
    with pytest.raises(
        RunFailed,
        match=r"the first weights of defender reached no worker, .* within 0 s \(run\.stall_s\); .* in stall-now/$",
    ):
        await catch_up(parts(), stalled(parse_plan({}, tmp_path)), watch, quiet())


def stalled(plan: Plan, after_s: float = 0.05) -> Plan:
    return replace(plan, stall_s=after_s)


def quiet() -> Progress:
    return Progress(Console(file=StringIO()))


def warming(done: int, version: int = -1) -> PublisherStats:
    worker = WorkerState("attacker-0", "healthy", version, "")
    mine = PlayerPushes(newest=max(version, 0), workers=(worker,), warm=WarmStart(done, 5, 3.0, 1.5))
    return PublisherStats(True, {"attacker": mine, "defender": PlayerPushes()})


@pytest.mark.usefixtures("no_learner_ended")
async def test_the_games_wait_for_a_warm_start_as_long_as_it_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "POLL_S", 0.05)
    warm = {"learners": {"attacker": {"sft": {"warm_steps": 5}}}}
    plan = stalled(parse_plan(warm, tmp_path), 0.4)
    steps = [warming(k // 2) for k in range(11)]  # longer in all than the limit, never longer without a step
    watch: Any = FakeWatch(PublisherStats(True), *steps, warming(5, 0), warming(5, 1))
    watch.poll.stats = RunStats(ReplayStats(answered=True))
    await catch_up(parts(), plan, watch, quiet())
    assert list_served(watch.poll.stats) == {"attacker"}
    stuck: Any = FakeWatch(warming(3))
    stuck.poll.stats = RunStats(ReplayStats(answered=True))
    with pytest.raises(RunFailed, match="the first weights of attacker reached no worker, and no learner moved"):
        await catch_up(parts(), plan, stuck, quiet())


def test_the_sum_of_tokens_never_falls_when_a_worker_starts_anew_or_does_not_answer() -> None:
    total = RisingSum()
    answers = [{"a": 100, "b": 50}, {"a": 120}, {"a": 5, "b": 60}, {"a": 5, "b": 60}, {}, {"a": 2, "b": 70}]
    assert [total.add(counts) for counts in answers] == [150, 170, 185, 185, 185, 197]
