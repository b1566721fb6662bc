"""Several workers of one kind, seen as one: each ask goes to the worker that `protocol.router` names, by a Ray call.

    pool = WorkerPool(handles, RouterConfig(), "rollout-0/judge")
    verdicts = await pool.ask(requests, questions=len(requests), limit_s=60.0)

All asks to one worker in a tick travel in one call, and the answers that are ready come back together. Invariants:
- an ask ends with the worker's answer, the worker's own exception, `TimeoutError` or `WorkersLost`. What only one worker failed
  of, another is asked;
- one that is cancelled is cancelled in the worker;
- a call is never repeated by Ray, because a retry would queue behind a restart.

Decides nothing and restarts nobody. May be used on one event loop after another, on each until nothing is asked.
"""

import asyncio
import itertools
import math
import os
import secrets
import time
from collections.abc import Sequence
from typing import Any

import structlog
from ray.exceptions import RayActorError

from protocol.errors import trail
from protocol.exchange import Batch, Posted, Replies, WorkersLost
from protocol.pace import Pace
from protocol.recipe import RouterConfig
from protocol.router import MAX_LOSSES, Router
from protocol.router_state import Exchange, RouterStats

TICK_S, TICK_MAX_S = 0.02, 0.5
TICK_SHARE = 0.01  # of an answer's time: asks of so long a tick travel together
# Calls out from which on the tick grows, and by how much: over many workers few asks meet in one.
MANY_CALLS, TICK_LONGER = 16, 3.0
LOST_S = 120.0  # beyond its hold: a call that is still out is lost; long before, its asks are at other workers

_log = structlog.get_logger(__name__)


class WorkerPool:
    """Implements `protocol.interfaces.Workers` over Ray actor handles.

    Args:
        workers: handles with a method `exchange`, see `protocol.exchange`.
        config: the recipe's `router` section.
        name: of the caller, in the workers' eyes; made unique here.
        share: (k, n): the k-th of n callers, see `Router`.

    Raises:
        ValueError: there is no worker.
    """

    def __init__(
        self, workers: Sequence[Any], config: RouterConfig, name: str, share: tuple[int, int] = (0, 1)
    ) -> None:
        if not workers:
            raise ValueError("a pool needs at least one worker")
        self._workers, self._config, self._name, self._share = list(workers), config, name, share
        self._pace = Pace(TICK_S, TICK_MAX_S, TICK_SHARE)
        self._caller = ""
        self._router: Router | None = None
        self._ids = itertools.count()
        self._asks: dict[int, tuple[Posted, asyncio.Future[Any]]] = {}
        self._deciding: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()

    def __reduce__(self) -> tuple[type["WorkerPool"], tuple[list[Any], RouterConfig, str, tuple[int, int]]]:
        return type(self), (self._workers, self._config, self._name, self._share)

    async def ask(self, body: Any, questions: int = 1, limit_s: float = math.inf, absent_s: float = math.inf) -> Any:
        """What a worker answers.

        Args:
            body: what the workers' kind of ask is.
            questions: its weight in a worker's load.
            limit_s: for the answer, waiting for a worker included.
            absent_s: the longest time in which no worker that has it is heard of.

        Raises:
            TimeoutError: one of the two passed.
            WorkersLost: worker after worker was lost with it.
            Exception: what the worker raised, with the lines that it passed there as a note.
        """
        self._begin()
        ask, began = next(self._ids), time.monotonic()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asks[ask] = (Posted(ask, questions, body), answer)
        self._state.add(ask, questions, began, limit_s, absent_s)
        self._news.set()
        try:
            value = await answer
            self._pace.note(time.monotonic() - began)
            return value
        finally:
            del self._asks[ask]
            self._state.give_up(ask)
            self._news.set()

    def stats(self) -> RouterStats:
        """Counts since the pool was first used in this process."""
        return RouterStats() if self._router is None else self._router.stats()

    @property
    def _state(self) -> Router:
        """The router; made where the pool is used, because its times are this process's."""
        if self._router is None:
            self._router = Router(len(self._workers), self._config.hedge_s, time.monotonic(), self._share)
            self._caller = f"{self._name}@{os.getpid()}-{secrets.token_hex(4)}"
        return self._router

    def _begin(self) -> None:
        """The task that decides runs while there is anything to decide."""
        loop = asyncio.get_running_loop()
        if self._deciding is None or self._deciding.done() or self._deciding.get_loop() is not loop:
            self._news = asyncio.Event()
            self._deciding = loop.create_task(self._decide())

    async def _decide(self) -> None:
        router = self._state
        while True:
            self._news.clear()
            decisions = router.decide(time.monotonic())
            for exchange in decisions.exchanges:
                self._call(exchange)
            for ask in decisions.expired:
                self._end(ask, TimeoutError("no worker answered in time"))
            for ask in decisions.condemned:
                self._end(ask, WorkersLost(f"{MAX_LOSSES} workers were lost with it"))
            if router.idle:
                return
            await asyncio.sleep(self._pace.wait_s(longer=min(TICK_LONGER, max(1.0, len(self._calls) / MANY_CALLS))))
            try:
                await asyncio.wait_for(self._news.wait(), router.look_s)
            except TimeoutError:
                continue

    def _call(self, exchange: Exchange) -> None:
        posted = [self._asks[ask][0] for ask in exchange.asks]
        call = asyncio.get_running_loop().create_task(self._exchange(exchange, Batch(tuple(posted), exchange.given_up)))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _exchange(self, exchange: Exchange, batch: Batch) -> None:
        worker, router = exchange.worker, self._state
        try:
            answer_s = exchange.hold_s + LOST_S
            reply: Replies = await asyncio.wait_for(
                self._method(worker).remote(self._caller, batch, exchange.hold_s), answer_s
            )
        except asyncio.CancelledError:  # its loop ends, and with it what the worker says
            router.note_gone(worker, exchange.number, time.monotonic())
            raise
        except (RayActorError, TimeoutError) as error:
            _log.warning("worker away", pool=self._name, worker=worker, error=type(error).__name__)
            router.note_gone(worker, exchange.number, time.monotonic())
        except Exception as error:  # noqa: BLE001  # a fault of the worker or ours: its asks go to others, until their deadline
            _log.error("exchange failed", pool=self._name, worker=worker, trail=trail(error))
            router.note_gone(worker, exchange.number, time.monotonic())
        else:
            for answer in router.note_reply(worker, exchange.number, reply, time.monotonic()):
                self._end(answer.id, answer.error, answer.value)
        self._news.set()
        if not router.idle:  # somebody who was silent must still be told what was given up
            self._begin()

    def _method(self, worker: int) -> Any:
        return self._workers[worker].exchange.options(max_task_retries=0)

    def _end(self, ask: int, error: Exception | None, value: Any = None) -> None:
        entry = self._asks.get(ask)
        if entry is None or entry[1].done():  # cancelled meanwhile
            return
        if error is None:
            entry[1].set_result(value)
        else:
            entry[1].set_exception(error)
