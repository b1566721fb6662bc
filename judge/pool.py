"""The client's side of several judge workers: asks the least loaded one, and survives workers that die or hang.

Where the workers compute the verdicts, a call has a deadline. Where they pass the questions on to an endpoint (`admits`), a call
may wait for the endpoint's limits and pauses, and each attempt has a deadline in the worker. So here only `admits` calls are sent
at once, the others wait their turn, and a call lasts as long as its worker answers health checks.

Invariants:
- every request gets exactly one verdict, in order, and a judge that cannot be reached yields a failure, never a number;
- a worker that failed a call is avoided for a while, longer each time in a row; it is asked sooner only when all are avoided;
- a failed verdict is asked again with the next seed, unless the failure is permanent;
- a question whose verdict is cached, or being asked for, is not asked again, unless a fresh verdict is wanted.

It does not restart workers (Ray does) and knows nothing of rubrics.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from judge.cache import VerdictCache, digest_question
from judge.errors import GAVE_UP
from judge.identity import NO_JUDGE
from judge.stats import PoolStats
from protocol.link import Link
from protocol.types import JudgeRequest, Verdict

AVOID_S = 1.0  # after a first failure: about what Ray takes to notice a death and start the process again
AVOID_MAX_S = 60.0  # a worker that hangs costs its callers one deadline in this long
PERMANENT = ("query", NO_JUDGE, GAVE_UP)  # failures that begin so would fail with any seed

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Load:
    in_flight: int = 0
    failures: int = 0  # in a row
    avoid_until: float = 0.0  # on the caller's clock, seconds
    chosen: int = 0  # how often, so that idle workers take turns


class LeastLoaded:
    """Chooses among `n` workers. A pure state machine: it reads no clock and makes no call.

    Each `choose` must be followed by one `done`, `failed` or `release` for the worker it named.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError("a pool needs at least one worker")
        self._loads = [_Load() for _ in range(n)]

    def choose(self, now: float) -> int:
        """The worker to ask at `now`: the one with the fewest calls in flight that is not avoided.

        Where all are avoided, the one whose time is over first.
        """
        ready = [k for k, load in enumerate(self._loads) if load.avoid_until <= now]
        if ready:
            pick = min(ready, key=lambda k: (self._loads[k].in_flight, self._loads[k].chosen))
        else:
            pick = min(range(len(self._loads)), key=lambda k: self._loads[k].avoid_until)
        self._loads[pick].in_flight += 1
        self._loads[pick].chosen += 1
        return pick

    def wait_s(self, now: float) -> float:
        """Seconds from `now` until some worker is not avoided; 0 if one is not."""
        return max(0.0, min(load.avoid_until for load in self._loads) - now)

    def release(self, worker: int) -> None:
        """The caller gave the call up: nothing is known about the worker."""
        self._loads[worker].in_flight -= 1

    def done(self, worker: int) -> None:
        """The worker answered."""
        self.release(worker)
        load = self._loads[worker]
        load.failures, load.avoid_until = 0, 0.0

    def failed(self, worker: int, now: float) -> None:
        """The worker died, raised or missed the deadline. Calls that were in flight together count as one failure."""
        self.release(worker)
        load = self._loads[worker]
        if load.avoid_until <= now:
            load.avoid_until = now + min(AVOID_MAX_S, AVOID_S * 2**load.failures)
            load.failures += 1

    def in_flight(self) -> list[int]:
        """Calls in flight, for each worker."""
        return [load.in_flight for load in self._loads]


class JudgePool:
    """A `protocol.interfaces.Judge` over several workers. Use it from one event loop.

    Args:
        workers: Ray actor handles of `judge.worker.JudgeWorker`. They should not retry by themselves (`max_task_retries=0`).
        deadline_s: for one call, however many requests it carries; with `admits`, for one health check, and between two of them.
        attempts: rounds before a request is given up, whatever failed in them.
        cache: of verdicts; None asks every question.
        key: names the judge and its rubrics, for the cache: whatever changes the verdicts must change the key.
        admits: calls at the workers at once, for workers that ask an endpoint: as many as it takes. None: any number.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        deadline_s: float,
        attempts: int,
        cache: VerdictCache | None = None,
        key: str = "",
        admits: int | None = None,
    ) -> None:
        self._handles = list(workers)
        self._workers = [Link(worker) for worker in workers]
        self._deadline_s = deadline_s
        self._attempts = max(1, attempts)
        self._chooser = LeastLoaded(len(self._workers))
        self._cache, self._key = cache, key
        self._places = None if admits is None else asyncio.Semaphore(admits)
        self._pending: dict[bytes, asyncio.Task[dict[bytes, Verdict]]] = {}
        self._verdicts = self._failed = self._retried = self._calls_failed = self._cache_hits = 0

    async def judge(self, requests: Sequence[JudgeRequest], fresh: bool = False) -> list[Verdict]:
        """One verdict for each request, in that order.

        Takes at most `attempts` deadlines and the pauses between them; with `admits`, as long as the endpoint makes it wait.

        Args:
            requests: equal ones (whatever their seeds) share one answer.
            fresh: asks every one of them without the cache: for measuring the judge.
        """
        if self._cache is None or fresh:
            verdicts = await self._ask_all(requests)
        else:
            verdicts = await self._ask_new(requests, self._cache)
        self._verdicts += len(verdicts)
        self._failed += sum(v.failure is not None for v in verdicts)
        return verdicts

    async def _ask_new(self, requests: Sequence[JudgeRequest], cache: VerdictCache) -> list[Verdict]:
        """Answers from the cache and from what is being asked already; asks the rest in one call."""
        asked = [digest_question(self._key, request) for request in requests]
        given: dict[bytes, Verdict] = {}
        new: dict[bytes, JudgeRequest] = {}
        for one, request in zip(asked, requests, strict=True):
            if one in given or one in new or one in self._pending:
                continue
            if (known := cache.get(one)) is not None:
                given[one] = replace(known, remembered=True)
            else:
                new[one] = request
        if new:
            # A task of its own: others may wait for these verdicts after this caller has given up.
            task = asyncio.create_task(self._ask_once(new, cache))
            self._pending |= dict.fromkeys(new, task)
        waited = {one: self._pending[one] for one in asked if one not in given}
        for one, pending in waited.items():
            given[one] = (await asyncio.shield(pending))[one]
        self._cache_hits += len(requests) - len(new)
        return [given[one] for one in asked]

    async def _ask_once(self, new: dict[bytes, JudgeRequest], cache: VerdictCache) -> dict[bytes, Verdict]:
        try:
            verdicts = dict(zip(new, await self._ask_all(list(new.values())), strict=True))
        finally:
            for one in new:
                del self._pending[one]
        for one, verdict in verdicts.items():
            cache.put(one, verdict)
        return verdicts

    async def _ask_all(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        verdicts: dict[int, Verdict] = {}
        asked = dict(enumerate(requests))
        for attempt in range(self._attempts):
            if not asked:
                break
            if attempt:
                self._retried += len(asked)
                await asyncio.sleep(min(self._deadline_s, self._chooser.wait_s(time.monotonic())))
            async with self._places or contextlib.nullcontext():
                answer = await self._ask(list(asked.values()))
            if isinstance(answer, str):
                verdicts |= {k: Verdict("none", f"none/{r.criterion}", failure=answer) for k, r in asked.items()}
                continue
            verdicts |= dict(zip(asked, answer, strict=True))
            again = [k for k in asked if (why := verdicts[k].failure) is not None and not why.startswith(PERMANENT)]
            asked = {k: replace(asked[k], seed=asked[k].seed + 1) for k in again}
        return [verdicts[k] for k in range(len(requests))]

    def stats(self) -> PoolStats:
        """Counts since the pool was made."""
        return PoolStats(self._verdicts, self._failed, self._retried, self._calls_failed, self._cache_hits)

    async def _ask(self, requests: list[JudgeRequest]) -> list[Verdict] | str:
        """One call to one worker: its verdicts, or why there are none."""
        worker = self._chooser.choose(time.monotonic())
        try:
            verdicts = await self._answer(worker, requests)
            if len(verdicts) == len(requests):
                self._chooser.done(worker)
                return verdicts
            why = f"{len(verdicts)} verdicts for {len(requests)} requests"
        except TimeoutError:
            why = f"no answer in {self._deadline_s:g} s"
        except Exception as e:  # noqa: BLE001 - the worker's, or that it is gone
            why = type(e).__name__
        except BaseException:  # cancelled: not the worker's fault, and not ours to swallow
            self._chooser.release(worker)
            raise
        self._chooser.failed(worker, time.monotonic())
        self._calls_failed += 1
        _log.warning("judge call failed", worker=worker, why=why, requests=len(requests))
        return f"judge down: {why}"

    async def _answer(self, worker: int, requests: list[JudgeRequest]) -> list[Verdict]:
        """What a call gives; a call that ends otherwise is cancelled in the worker.

        Raises:
            TimeoutError: the deadline passed; with `admits`, a health check (the worker's `stats`) did not come back in it either.
        """
        answer = self._workers[worker].call("judge", requests)
        if self._places is None:
            verdicts: list[Verdict] = await asyncio.wait_for(answer, self._deadline_s)
            return verdicts
        call: asyncio.Task[list[Verdict]] = asyncio.create_task(answer)
        try:
            while not (await asyncio.wait([call], timeout=self._deadline_s))[0]:
                await asyncio.wait_for(self._handles[worker].stats.remote(), self._deadline_s)
            return await call
        finally:
            if not call.cancel() and not call.cancelled():
                call.exception()  # else asyncio prints an error that came while the worker was asked
