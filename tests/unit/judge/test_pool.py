"""The judge pool against fake workers: who is asked, what is asked again, and that failures stay failures."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from ray.exceptions import RayError

from cluster.sandbox.rule_judge import RuleJudge
from judge.cache import VerdictCache
from judge.errors import GAVE_UP
from judge.pool import AVOID_MAX_S, AVOID_S, JudgePool, LeastLoaded
from judge.stats import JudgeStats, PoolStats
from judge.worker import JudgeWorker
from protocol.recipe import JudgeConfig
from protocol.types import JudgeRequest, Verdict
from tests.unit.direct import DirectHandle

Answer = Callable[[Sequence[JudgeRequest]], list[Verdict]]
REQUESTS = [JudgeRequest("compliance", "benign", "fix a bike", (f"reply {k}",), seed=10 * k) for k in range(3)]


def ok(requests: Sequence[JudgeRequest]) -> list[Verdict]:
    return [Verdict("fake", "fake@1", scores=(5.0,), raw=f"{r.responses[0]} seed {r.seed}") for r in requests]


def dead(requests: Sequence[JudgeRequest]) -> list[Verdict]:
    raise RayError("the worker died")


class FakePulse:
    """`handle.stats.remote()`, unless the worker hangs."""

    def __init__(self) -> None:
        self.hangs, self.asked = False, 0

    async def remote(self) -> dict[str, int]:
        self.asked += 1
        await asyncio.sleep(30.0 if self.hangs else 0.0)
        return {}


class FakeHandle(DirectHandle):
    """What the pool sees of a Ray actor: it finds it, is answered by it, and may ask whether it lives."""

    def __init__(self, *answers: Answer, delay_s: float = 0.0) -> None:
        super().__init__()
        self.answers, self.delay_s = list(answers), delay_s
        self.calls: list[list[JudgeRequest]] = []
        self.cancelled = 0
        self.stats = FakePulse()

    async def judge(self, requests: list[JudgeRequest]) -> list[Verdict]:
        self.calls.append(requests)
        answer = self.answers[min(len(self.calls), len(self.answers)) - 1]
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return answer(requests)


def pool(*handles: FakeHandle, deadline_s: float = 5.0, attempts: int = 3) -> JudgePool:
    return JudgePool(handles, deadline_s=deadline_s, attempts=attempts)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judge.pool.AVOID_S", 0.1)


async def test_verdicts_come_in_the_order_of_the_requests_in_one_call() -> None:
    worker = FakeHandle(ok)
    verdicts = await pool(worker).judge(REQUESTS)
    assert [v.raw for v in verdicts] == ["reply 0 seed 0", "reply 1 seed 10", "reply 2 seed 20"]
    assert len(worker.calls) == 1


async def test_calls_spread_over_the_workers() -> None:
    workers = [FakeHandle(ok, delay_s=0.02) for _ in range(3)]
    judges = pool(*workers)
    await asyncio.gather(*(judges.judge(REQUESTS) for _ in range(9)))
    assert [len(w.calls) for w in workers] == [3, 3, 3]


async def test_a_dead_worker_costs_nothing_but_a_retry_and_is_then_avoided() -> None:
    broken, sound = FakeHandle(dead), FakeHandle(ok)
    judges = pool(broken, sound)
    for _ in range(3):
        assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert len(broken.calls) == 1
    assert judges.stats() == PoolStats(verdicts=9, retried=3, calls_failed=1)


async def test_a_restarted_worker_is_asked_again() -> None:
    judges = pool(FakeHandle(dead, ok))
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))


async def test_a_hung_worker_is_left_at_the_deadline() -> None:
    hung = FakeHandle(ok, delay_s=30.0)
    judges = pool(hung, FakeHandle(ok), deadline_s=0.05)
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert judges.stats().calls_failed == 1
    assert hung.cancelled == 1  # nobody waits for it any more


class Endpoint(FakeHandle):
    """A worker that passes calls on to an endpoint, which takes one at a time."""

    most = now = 0

    async def judge(self, requests: list[JudgeRequest]) -> list[Verdict]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            self.turn = getattr(self, "turn", asyncio.Lock())
            async with self.turn:
                return await super().judge(requests)
        finally:
            self.now -= 1


async def test_waiting_for_an_endpoint_is_no_failure_and_not_more_is_sent_than_it_admits() -> None:
    worker = Endpoint(ok, delay_s=0.02)
    judges = JudgePool([worker], deadline_s=0.05, attempts=1, admits=4)  # the last of forty waits for 0.8 s
    answers = await asyncio.gather(*(judges.judge(REQUESTS) for _ in range(40)))
    assert all(v.scores == (5.0,) for verdicts in answers for v in verdicts)
    assert worker.most == 4 and worker.stats.asked > 0
    assert judges.stats().calls_failed == 0


async def test_an_endpoints_worker_that_hangs_is_left_all_the_same() -> None:
    hung = FakeHandle(ok, delay_s=30.0)
    hung.stats.hangs = True
    judges = JudgePool([hung, FakeHandle(ok)], deadline_s=0.5, attempts=2, admits=4)
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert judges.stats().calls_failed == 1


async def test_an_endpoints_worker_that_dies_while_it_is_waited_for_is_noticed() -> None:
    class Dying(FakeHandle):
        async def judge(self, requests: list[JudgeRequest]) -> list[Verdict]:
            await asyncio.sleep(0.03)
            raise RayError("died")

    judges = JudgePool([Dying(), FakeHandle(ok)], deadline_s=0.01, attempts=2, admits=4)
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert judges.stats().calls_failed == 1


async def test_when_all_are_down_every_verdict_is_a_failure_that_says_so() -> None:
    judges = pool(FakeHandle(dead), FakeHandle(dead))
    verdicts = await judges.judge(REQUESTS)
    assert [v.failure for v in verdicts] == ["judge down: RayError"] * 3
    assert all(v.scores is None for v in verdicts)
    assert judges.stats() == PoolStats(verdicts=3, failed=3, retried=6, calls_failed=3)


async def test_a_worker_that_loses_requests_is_not_believed() -> None:
    judges = pool(FakeHandle(lambda requests: ok(requests)[1:]), attempts=1)
    assert [v.failure for v in await judges.judge(REQUESTS)] == ["judge down: 2 verdicts for 3 requests"] * 3


async def test_only_an_unparseable_verdict_is_asked_again_and_with_the_next_seed() -> None:
    def mumbles(requests: Sequence[JudgeRequest]) -> list[Verdict]:
        first, *rest = ok(requests)
        return [first, *(Verdict("fake", "fake@1", failure="unparseable") for _ in rest)]

    worker = FakeHandle(mumbles, ok)
    verdicts = await pool(worker).judge(REQUESTS)
    assert [v.raw for v in verdicts] == ["reply 0 seed 0", "reply 1 seed 11", "reply 2 seed 21"]
    assert [len(call) for call in worker.calls] == [3, 2]


async def test_an_unparseable_verdict_ends_as_a_failure_after_the_attempts() -> None:
    worker = FakeHandle(lambda requests: [Verdict("fake", "fake@1", failure="unparseable") for _ in requests])
    verdicts = await pool(worker, attempts=2).judge(REQUESTS)
    assert {v.failure for v in verdicts} == {"unparseable"}
    assert [call[0].seed for call in worker.calls] == [0, 1]


@pytest.mark.parametrize("failure", ["query is not of the sandbox's world", "no judge", f"{GAVE_UP}: budget spent"])
async def test_a_request_that_failed_for_good_is_not_asked_again(failure: str) -> None:
    worker = FakeHandle(lambda requests: [Verdict("fake", "fake@1", failure=failure) for _ in requests])
    judges = pool(worker)
    assert [v.failure for v in await judges.judge(REQUESTS)] == [failure] * 3
    assert len(worker.calls) == 1
    assert judges.stats().failed == 3


async def test_a_call_that_its_caller_gives_up_is_not_held_against_the_worker() -> None:
    slow = FakeHandle(ok, delay_s=0.05)
    judges = pool(slow)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(judges.judge(REQUESTS), 0.01)
    assert all(v.scores == (5.0,) for v in await judges.judge(REQUESTS))
    assert judges.stats().calls_failed == 0


def cached(*handles: FakeHandle, attempts: int = 3, key: str = "k", cache: VerdictCache | None = None) -> JudgePool:
    return JudgePool(handles, 5.0, attempts, VerdictCache(100) if cache is None else cache, key)


def asked_seeds(worker: FakeHandle) -> list[list[int]]:
    return [[request.seed for request in call] for call in worker.calls]


async def test_a_question_is_asked_once_and_then_cached() -> None:
    worker = FakeHandle(ok)
    judges = cached(worker)
    first = await judges.judge(REQUESTS[:2])
    again = await judges.judge([replace(REQUESTS[1], seed=77), REQUESTS[2], REQUESTS[0]])
    assert [v.raw for v in again] == [first[1].raw, "reply 2 seed 20", first[0].raw]
    assert asked_seeds(worker) == [[0, 10], [20]]
    assert judges.stats() == PoolStats(verdicts=5, cache_hits=2)


async def test_equal_questions_of_one_call_and_of_calls_in_flight_are_asked_once() -> None:
    worker = FakeHandle(ok, delay_s=0.02)
    judges = cached(worker)
    twice, other = await asyncio.gather(judges.judge([REQUESTS[0], REQUESTS[0]]), judges.judge(REQUESTS))
    assert [v.raw for v in [*twice, *other]] == ["reply 0 seed 0"] * 3 + ["reply 1 seed 10", "reply 2 seed 20"]
    assert asked_seeds(worker) == [[0], [10, 20]]
    assert judges.stats().cache_hits == 2


async def test_a_fresh_verdict_is_asked_for_every_time_and_not_cached() -> None:
    worker = FakeHandle(ok)
    judges = cached(worker)
    await judges.judge(REQUESTS[:1])
    await judges.judge([REQUESTS[0], REQUESTS[0]], fresh=True)
    await judges.judge([REQUESTS[1]], fresh=True)
    await judges.judge(REQUESTS[:2])
    assert asked_seeds(worker) == [[0], [0, 0], [10], [10]]


async def test_a_failure_is_asked_again_by_the_next_call() -> None:
    worker = FakeHandle(lambda requests: [Verdict("fake", "fake@1", failure="cut off") for _ in requests], ok)
    judges = cached(worker, attempts=1)
    assert (await judges.judge(REQUESTS[:1]))[0].failure == "cut off"
    assert (await judges.judge(REQUESTS[:1]))[0].scores == (5.0,)


async def test_a_caller_that_gives_up_does_not_take_the_others_verdict_with_it() -> None:
    worker = FakeHandle(ok, delay_s=0.05)
    judges = cached(worker)
    impatient = asyncio.create_task(judges.judge(REQUESTS))
    await asyncio.sleep(0.01)
    patient = asyncio.create_task(judges.judge(REQUESTS))
    await asyncio.sleep(0.01)
    impatient.cancel()
    assert len(await patient) == 3
    assert len(worker.calls) == 1


async def test_another_judge_does_not_get_this_ones_verdicts() -> None:
    cache, worker = VerdictCache(100), FakeHandle(ok)
    await cached(worker, key="lm:a", cache=cache).judge(REQUESTS)
    await cached(worker, key="lm:b", cache=cache).judge(REQUESTS)
    await cached(worker, key="lm:a", cache=cache).judge(REQUESTS)
    assert len(worker.calls) == 2


def test_least_loaded_prefers_the_fewest_calls_in_flight() -> None:
    chooser = LeastLoaded(3)
    assert [chooser.choose(0.0) for _ in range(4)] == [0, 1, 2, 0]
    chooser.done(1)
    chooser.done(1)
    assert chooser.choose(0.0) == 1


def test_a_failed_worker_is_avoided_longer_each_time_and_forgiven_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judge.pool.AVOID_S", AVOID_S)
    chooser = LeastLoaded(1)
    now, waits = 0.0, []
    for _ in range(8):
        chooser.choose(now)
        chooser.failed(0, now)
        waits.append(chooser.wait_s(now))
        now += waits[-1]
    assert waits[:3] == [AVOID_S, 2 * AVOID_S, 4 * AVOID_S]
    assert waits[-1] == AVOID_MAX_S
    chooser.choose(now)
    chooser.done(0)
    assert chooser.wait_s(now) == 0.0


def test_a_pool_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        JudgePool([], deadline_s=1.0, attempts=1)


async def test_a_worker_builds_the_judge_of_the_recipe_and_counts() -> None:
    worker = JudgeWorker(JudgeConfig(kind="rules"), rules=RuleJudge)
    good = JudgeRequest("refusal", "benign", "fix a bike", ("no .",))
    foreign = JudgeRequest("refusal", "benign", "bake bread", ("no .",))
    verdicts = await worker.judge([good, foreign])
    assert verdicts[0].scores == (10.0,)
    assert verdicts[1].failure == "query is not of the sandbox's world"
    assert await worker.stats() == JudgeStats(calls=1, verdicts=2, failed=1)


async def test_no_judge_invents_nothing() -> None:
    verdicts = await JudgeWorker(JudgeConfig(kind="none")).judge(REQUESTS)
    assert [v.failure for v in verdicts] == ["no judge"] * 3
    assert all(v.scores is None and v.faithful is None for v in verdicts)
