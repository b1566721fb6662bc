"""The client's side of the judge workers: remembers verdicts, asks again for what cannot be read, and turns silence into failures.

Where the workers compute the verdicts, a call has a deadline. Where they pass the questions on to an endpoint (`admits`), a call
may wait for the endpoint's limits and pauses, and each attempt has a deadline in the worker. So here only `admits` calls are sent
at once, the others wait their turn, and a call lasts as long as its worker is heard of.

Invariants:
- every request gets exactly one verdict, in order, and a judge that cannot be reached yields a failure, never a number;
- a failed verdict is asked again with the next seed, unless the failure is permanent;
- a question whose verdict is cached, or being asked for, is not asked again, unless a fresh verdict is wanted;
- a question that nobody waits for any more is given up: an abandoned game spends nothing more.

Which worker is asked, and what happens when it dies or hangs, is not decided here (`protocol.router`). It knows nothing of rubrics.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from judge.cache import VerdictCache, digest_question
from judge.errors import GAVE_UP
from judge.identity import NO_JUDGE
from judge.stats import PoolStats
from protocol.exchange import WorkersLost
from protocol.interfaces import Workers
from protocol.types import JudgeRequest, Verdict

DOWN = "judge down: "
LOST = f"{DOWN}worker after worker was lost with it"
PERMANENT = ("query", NO_JUDGE, GAVE_UP, LOST)  # failures that begin so would fail with any seed

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Asking:
    """Questions on their way, and how many callers wait for some of them."""

    questions: frozenset[bytes]
    task: "asyncio.Task[dict[bytes, Verdict]]"
    waiters: int = 0


class JudgePool:
    """A `protocol.interfaces.Judge` over several workers. Use it from one event loop.

    Args:
        workers: `judge.worker.JudgeWorker`s, seen as one.
        deadline_s: for one call, however many requests it carries; with `admits`, the longest time without a sign of its worker.
        attempts: rounds before a request is given up, whatever failed in them.
        cache: of verdicts; None asks every question.
        key: names the judge and its rubrics, for the cache: whatever changes the verdicts must change the key.
        admits: calls at the workers at once, for workers that ask an endpoint: as many as it takes. None: any number.
    """

    def __init__(
        self,
        workers: Workers,
        deadline_s: float,
        attempts: int,
        cache: VerdictCache | None = None,
        key: str = "",
        admits: int | None = None,
    ) -> None:
        self._workers = workers
        self._deadline_s = deadline_s
        self._attempts = max(1, attempts)
        self._cache, self._key = cache, key
        self._places = None if admits is None else asyncio.Semaphore(admits)
        self._pending: dict[bytes, _Asking] = {}
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
            asking = _Asking(frozenset(new), asyncio.create_task(self._ask_once(new, cache)))
            asking.task.add_done_callback(lambda _: self._forget(asking))
            self._pending |= dict.fromkeys(new, asking)
        waited = {one: self._pending[one] for one in asked if one not in given}
        given |= await self._wait_for(waited)
        self._cache_hits += len(requests) - len(new)
        return [given[one] for one in asked]

    async def _wait_for(self, waited: dict[bytes, _Asking]) -> dict[bytes, Verdict]:
        """The verdicts; what nobody else waits for is given up if this caller is cancelled."""
        for asking, n in (mine := Counter(waited.values())).items():
            asking.waiters += n
        try:
            return {one: (await asyncio.shield(asking.task))[one] for one, asking in waited.items()}
        finally:
            for asking, n in mine.items():
                asking.waiters -= n
                if not asking.waiters and asking.task.cancel():
                    self._forget(asking)  # now: whoever asks next must not wait for what is given up

    def _forget(self, asking: _Asking) -> None:
        for one in asking.questions:
            if self._pending.get(one) is asking:
                del self._pending[one]

    async def _ask_once(self, new: dict[bytes, JudgeRequest], cache: VerdictCache) -> dict[bytes, Verdict]:
        verdicts = dict(zip(new, await self._ask_all(list(new.values())), strict=True))
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
            async with self._places or contextlib.nullcontext():
                answer = await self._ask(list(asked.values()))
            if isinstance(answer, str):
                verdicts |= {k: Verdict("none", f"none/{r.criterion}", failure=answer) for k, r in asked.items()}
                if answer.startswith(PERMANENT):
                    break
                continue
            verdicts |= dict(zip(asked, answer, strict=True))
            again = [k for k in asked if (why := verdicts[k].failure) is not None and not why.startswith(PERMANENT)]
            asked = {k: replace(asked[k], seed=asked[k].seed + 1) for k in again}
        return [verdicts[k] for k in range(len(requests))]

    def stats(self) -> PoolStats:
        """Counts since the pool was made."""
        return PoolStats(self._verdicts, self._failed, self._retried, self._calls_failed, self._cache_hits)

    async def _ask(self, requests: list[JudgeRequest]) -> list[Verdict] | str:
        """One call: its verdicts, or why there are none."""
        limit = {"limit_s" if self._places is None else "absent_s": self._deadline_s}
        try:
            verdicts: list[Verdict] = await self._workers.ask(tuple(requests), len(requests), **limit)
            if len(verdicts) == len(requests):
                return verdicts
            why = f"{len(verdicts)} verdicts for {len(requests)} requests"
        except TimeoutError:
            why = f"no answer in {self._deadline_s:g} s"
        except WorkersLost:
            why = LOST.removeprefix(DOWN)
        except Exception as e:  # noqa: BLE001  # the worker's own; it is logged there
            why = type(e).__name__
        self._calls_failed += 1
        _log.warning("judge call failed", why=why, requests=len(requests))
        return f"{DOWN}{why}"
