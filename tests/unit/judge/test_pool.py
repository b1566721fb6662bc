"""The judge pool against fake workers: who is asked, what is asked again, and that failures stay failures."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from actors.pool import WorkerPool
from cluster.sandbox.rule_judge import RuleJudge
from judge.cache import VerdictCache
from judge.errors import GAVE_UP
from judge.pool import LOST, JudgePool
from judge.stats import JudgeStats, PoolStats
from judge.worker import JudgeWorker
from protocol.exchange import WorkerFault
from protocol.recipe import JudgeConfig, RouterConfig
from protocol.router import MAX_LOSSES
from protocol.types import JudgeRequest, Verdict
from tests.unit.workers import FakeWorker, until

Answer = Callable[[Sequence[JudgeRequest]], list[Verdict]]
REQUESTS = [JudgeRequest("compliance", "benign", "fix a bike", (f"reply {k}",), seed=10 * k) for k in range(3)]


def ok(requests: Sequence[JudgeRequest]) -> list[Verdict]:
    return [Verdict("fake", "fake@1", scores=(5.0,), raw=f"{r.responses[0]} seed {r.seed}") for r in requests]


def dead(requests: Sequence[JudgeRequest]) -> list[Verdict]:
    raise RuntimeError("a bug of ours")


class FakeJudge(FakeWorker):
    """Each call gets the next of `answers`, the last one for ever."""

    def __init__(self, *answers: Answer, delay_s: float = 0.0) -> None:
        super().__init__(self._judge)
        self.answers, self.delay_s = list(answers), delay_s

    async def _judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        answer = self.answers[min(len(self.calls), len(self.answers)) - 1]
        await asyncio.sleep(self.delay_s)
        return answer(requests)


def seen_as_one(*workers: FakeWorker, hedge_s: float = 2.0) -> WorkerPool:
    return WorkerPool(workers, RouterConfig(hedge_s=hedge_s), "test")


def pool(*workers: FakeWorker, deadline_s: float = 5.0, attempts: int = 3, admits: int | None = None) -> JudgePool:
    return JudgePool(seen_as_one(*workers), deadline_s, attempts, admits=admits)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.router_state.AVOID_S", 0.1)
    monkeypatch.setattr("protocol.router.PROBE_S", 0.1)


async def test_verdicts_come_in_the_order_of_the_requests_in_one_call() -> None:
    worker = FakeJudge(ok)
    verdicts = await pool(worker).judge(REQUESTS)
    assert [v.raw for v in verdicts] == ["reply 0 seed 0", "reply 1 seed 10", "reply 2 seed 20"]
    assert len(worker.calls) == 1


async def test_calls_spread_over_the_workers() -> None:
    workers = [FakeJudge(ok, delay_s=0.02) for _ in range(3)]
    judges = pool(*workers)
    await asyncio.gather(*(judges.judge(REQUESTS) for _ in range(9)))
    assert [len(w.calls) for w in workers] == [3, 3, 3]


async def test_a_broken_worker_costs_nothing_but_a_retry_and_is_then_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.router_state.AVOID_S", 60.0)
    broken, sound = FakeJudge(dead), FakeJudge(ok)
    judges = pool(broken, sound)
    for _ in range(3):
        assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert len(broken.calls) == 1
    assert judges.stats() == PoolStats(verdicts=9, retried=3, calls_failed=1)


async def test_a_worker_that_restarts_is_asked_again() -> None:
    worker = FakeJudge(ok)
    worker.die()
    asyncio.get_running_loop().call_later(0.1, worker.come_back)
    assert all(v.scores == (5.0,) for v in await pool(worker).judge(REQUESTS))


async def test_a_hung_worker_is_left_at_the_deadline() -> None:
    hung = FakeJudge(ok, delay_s=30.0)
    judges = pool(hung, FakeJudge(ok), deadline_s=0.2)
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert judges.stats().calls_failed == 1
    await until(lambda: hung.cancelled)  # nobody waits for it any more


async def test_a_stopped_worker_costs_a_moment_and_no_failure() -> None:
    stopped = FakeJudge(ok)
    stopped.hang()
    judges = JudgePool(seen_as_one(stopped, FakeJudge(ok), hedge_s=0.3), 20.0, attempts=1)
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert judges.stats().calls_failed == 0


async def test_questions_that_break_every_judge_fail_and_are_not_asked_again() -> None:
    def broke(requests: Sequence[JudgeRequest]) -> list[Verdict]:
        raise WorkerFault("the engine broke")

    workers = [FakeJudge(broke) for _ in range(MAX_LOSSES + 1)]
    verdicts = await pool(*workers).judge(REQUESTS)
    assert {v.failure for v in verdicts} == {LOST}
    assert sum(len(worker.calls) for worker in workers) == MAX_LOSSES


class Endpoint(FakeJudge):
    """A worker that passes calls on to an endpoint, which takes one at a time."""

    most = now = 0

    async def _judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            self.turn = getattr(self, "turn", asyncio.Lock())
            async with self.turn:
                return await super()._judge(requests)
        finally:
            self.now -= 1


async def test_waiting_for_an_endpoint_is_no_failure_and_not_more_is_sent_than_it_admits() -> None:
    worker = Endpoint(ok, delay_s=0.05)
    judges = pool(worker, deadline_s=0.4, attempts=1, admits=4)  # the last of forty waits for 2 s
    answers = await asyncio.gather(*(judges.judge(REQUESTS) for _ in range(40)))
    assert all(v.scores == (5.0,) for verdicts in answers for v in verdicts)
    assert worker.most == 4
    assert judges.stats().calls_failed == 0


async def test_an_endpoints_worker_that_hangs_is_left_all_the_same() -> None:
    hung = FakeJudge(ok)
    hung.hang()
    judges = pool(hung, FakeJudge(ok), deadline_s=0.5, attempts=2, admits=4)
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert judges.stats().calls_failed == 1


async def test_an_endpoints_worker_that_dies_while_it_is_waited_for_is_no_failure() -> None:
    dying = FakeJudge(ok, delay_s=30.0)
    judges = pool(dying, FakeJudge(ok), attempts=1, admits=4)
    asked = asyncio.create_task(judges.judge(REQUESTS))
    await until(lambda: dying.calls)
    dying.die()
    assert all(v.scores == (5.0,) for v in await asked)
    assert judges.stats().calls_failed == 0


async def test_when_all_are_down_every_verdict_is_a_failure_that_says_so() -> None:
    judges = pool(FakeJudge(dead), FakeJudge(dead))
    verdicts = await judges.judge(REQUESTS)
    assert [v.failure for v in verdicts] == ["judge down: RuntimeError"] * 3
    assert all(v.scores is None for v in verdicts)
    assert judges.stats() == PoolStats(verdicts=3, failed=3, retried=6, calls_failed=3)


async def test_a_worker_that_loses_requests_is_not_believed() -> None:
    judges = pool(FakeJudge(lambda requests: ok(requests)[1:]), attempts=1)
    assert [v.failure for v in await judges.judge(REQUESTS)] == ["judge down: 2 verdicts for 3 requests"] * 3


async def test_only_an_unparseable_verdict_is_asked_again_and_with_the_next_seed() -> None:
    def mumbles(requests: Sequence[JudgeRequest]) -> list[Verdict]:
        first, *rest = ok(requests)
        return [first, *(Verdict("fake", "fake@1", failure="unparseable") for _ in rest)]

    worker = FakeJudge(mumbles, ok)
    verdicts = await pool(worker).judge(REQUESTS)
    assert [v.raw for v in verdicts] == ["reply 0 seed 0", "reply 1 seed 11", "reply 2 seed 21"]
    assert [len(call) for call in worker.calls] == [3, 2]


async def test_an_unparseable_verdict_ends_as_a_failure_after_the_attempts() -> None:
    worker = FakeJudge(lambda requests: [Verdict("fake", "fake@1", failure="unparseable") for _ in requests])
    verdicts = await pool(worker, attempts=2).judge(REQUESTS)
    assert {v.failure for v in verdicts} == {"unparseable"}
    assert [call[0].seed for call in worker.calls] == [0, 1]


@pytest.mark.parametrize("failure", ["query is not of the sandbox's world", "no judge", f"{GAVE_UP}: budget spent"])
async def test_a_request_that_failed_for_good_is_not_asked_again(failure: str) -> None:
    worker = FakeJudge(lambda requests: [Verdict("fake", "fake@1", failure=failure) for _ in requests])
    judges = pool(worker)
    assert [v.failure for v in await judges.judge(REQUESTS)] == [failure] * 3
    assert len(worker.calls) == 1
    assert judges.stats().failed == 3


async def test_a_call_that_its_caller_gives_up_is_not_held_against_the_worker() -> None:
    slow = FakeJudge(ok, delay_s=0.2)
    judges = pool(slow)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(judges.judge(REQUESTS), 0.1)
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert judges.stats().calls_failed == 0


def cached(*workers: FakeWorker, attempts: int = 3, key: str = "k", cache: VerdictCache | None = None) -> JudgePool:
    return JudgePool(seen_as_one(*workers), 5.0, attempts, VerdictCache(100) if cache is None else cache, key)


def asked_seeds(worker: FakeJudge) -> list[list[int]]:
    return [[request.seed for request in call] for call in worker.calls]


async def test_a_question_is_asked_once_and_then_cached() -> None:
    worker = FakeJudge(ok)
    judges = cached(worker)
    first = await judges.judge(REQUESTS[:2])
    again = await judges.judge([replace(REQUESTS[1], seed=77), REQUESTS[2], REQUESTS[0]])
    assert [v.raw for v in again] == [first[1].raw, "reply 2 seed 20", first[0].raw]
    assert asked_seeds(worker) == [[0, 10], [20]]
    assert judges.stats() == PoolStats(verdicts=5, cache_hits=2)


async def test_equal_questions_of_one_call_and_of_calls_in_flight_are_asked_once() -> None:
    worker = FakeJudge(ok, delay_s=0.02)
    judges = cached(worker)
    twice, other = await asyncio.gather(judges.judge([REQUESTS[0], REQUESTS[0]]), judges.judge(REQUESTS))
    assert [v.raw for v in [*twice, *other]] == ["reply 0 seed 0"] * 3 + ["reply 1 seed 10", "reply 2 seed 20"]
    assert asked_seeds(worker) == [[0], [10, 20]]
    assert judges.stats().cache_hits == 2


async def test_a_fresh_verdict_is_asked_for_every_time_and_not_cached() -> None:
    worker = FakeJudge(ok)
    judges = cached(worker)
    await judges.judge(REQUESTS[:1])
    await judges.judge([REQUESTS[0], REQUESTS[0]], fresh=True)
    await judges.judge([REQUESTS[1]], fresh=True)
    await judges.judge(REQUESTS[:2])
    assert asked_seeds(worker) == [[0], [0, 0], [10], [10]]


async def test_a_failure_is_asked_again_by_the_next_call() -> None:
    worker = FakeJudge(lambda requests: [Verdict("fake", "fake@1", failure="cut off") for _ in requests], ok)
    judges = cached(worker, attempts=1)
    assert (await judges.judge(REQUESTS[:1]))[0].failure == "cut off"
    assert (await judges.judge(REQUESTS[:1]))[0].scores == (5.0,)


async def test_a_caller_that_gives_up_does_not_take_the_others_verdict_with_it() -> None:
    worker = FakeJudge(ok, delay_s=0.05)
    judges = cached(worker)
    impatient = asyncio.create_task(judges.judge(REQUESTS))
    await asyncio.sleep(0.01)
    patient = asyncio.create_task(judges.judge(REQUESTS))
    await asyncio.sleep(0.01)
    impatient.cancel()
    assert len(await patient) == 3
    assert len(worker.calls) == 1


async def test_another_judge_does_not_get_this_ones_verdicts() -> None:
    cache, worker = VerdictCache(100), FakeJudge(ok)
    await cached(worker, key="lm:a", cache=cache).judge(REQUESTS)
    await cached(worker, key="lm:b", cache=cache).judge(REQUESTS)
    await cached(worker, key="lm:a", cache=cache).judge(REQUESTS)
    assert len(worker.calls) == 2


async def test_an_abandoned_game_gives_its_questions_up() -> None:
    worker = FakeJudge(lambda requests: [Verdict("fake", "fake@1", failure="cut off") for _ in requests], delay_s=0.1)
    judges = cached(worker)
    game = asyncio.create_task(judges.judge(REQUESTS))
    await until(lambda: len(worker.calls) == 2)  # the second attempt of three is under way
    game.cancel()
    await until(lambda: worker.cancelled)
    await asyncio.sleep(0.4)
    assert len(worker.calls) == 2 and worker.running == 0


async def test_a_question_that_another_game_waits_for_goes_on() -> None:
    worker = FakeJudge(ok, delay_s=0.2)
    judges = cached(worker)
    first = asyncio.create_task(judges.judge(REQUESTS[:2]))
    await until(lambda: worker.calls)
    second = asyncio.create_task(judges.judge(REQUESTS[1:]))
    await asyncio.sleep(0)
    first.cancel()
    assert [v.raw for v in await second] == ["reply 1 seed 10", "reply 2 seed 20"]
    assert asked_seeds(worker) == [[0, 10], [20]] and worker.cancelled == 0


async def test_a_question_that_was_just_given_up_is_asked_anew() -> None:
    worker = FakeJudge(ok, delay_s=0.2)
    judges = cached(worker)
    first = asyncio.create_task(judges.judge(REQUESTS[:1]))
    await until(lambda: worker.calls)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await judges.judge(REQUESTS[:1]))[0].raw == "reply 0 seed 0"
    assert asked_seeds(worker) == [[0], [0]]


async def test_a_game_abandoned_without_a_cache_gives_its_questions_up_too() -> None:
    worker = FakeJudge(ok, delay_s=30.0)
    game = asyncio.create_task(pool(worker).judge(REQUESTS))
    await until(lambda: worker.calls)
    game.cancel()
    await until(lambda: worker.cancelled)
    assert (worker.cancelled, len(worker.calls)) == (1, 1)  # told once, and not asked again


async def test_a_worker_builds_the_judge_of_the_recipe_and_counts() -> None:
    worker = JudgeWorker(JudgeConfig(kind="rules"), rules=RuleJudge)
    await worker.start()
    good = JudgeRequest("refusal", "benign", "fix a bike", ("no .",))
    foreign = JudgeRequest("refusal", "benign", "bake bread", ("no .",))
    verdicts = await worker.judge([good, foreign])
    assert verdicts[0].scores == (10.0,)
    assert verdicts[1].failure == "query is not of the sandbox's world"
    assert await worker.stats() == JudgeStats(calls=1, verdicts=2, failed=1)


async def test_no_judge_invents_nothing() -> None:
    worker = JudgeWorker(JudgeConfig(kind="none"))
    await worker.start()
    verdicts = await worker.judge(REQUESTS)
    assert [v.failure for v in verdicts] == ["no judge"] * 3
    assert all(v.scores is None and v.faithful is None for v in verdicts)
