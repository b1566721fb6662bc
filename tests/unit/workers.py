"""A worker in this process, seen as its Ray handle is: only the handle is fake, the inbox behind it is real."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ray.exceptions import ActorUnavailableError, RayActorError

from protocol.exchange import Batch, NotReady, Replies, Vitals
from protocol.inbox import Inbox

Answer = Callable[[Any], Awaitable[Any]]

AWAY_S = 0.02  # Ray takes some two seconds to say that an actor restarts


class Remote:
    """`handle.method.remote(...)` as Ray has it, for a coroutine function."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method

    def options(self, **options: Any) -> "Remote":
        assert options == {"max_task_retries": 0}
        return self

    def remote(self, *args: Any) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self._method(*args))


class FakeWorker:
    """The handle of a worker that answers by a function of the ask.

    Args:
        answer: an ask's answer, or raises it.
        ready: whether it takes asks.
    """

    def __init__(self, answer: Answer, ready: bool = True) -> None:
        self.answer, self.ready = answer, ready
        self.exchange, self.health = Remote(self._exchange), Remote(self._health)
        self.batches: list[Batch] = []
        self.calls: list[Any] = []  # what was asked, in its order
        self.cancelled = 0
        self.dead: RayActorError | None = None
        self.hung = False
        self.steps: int | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._going = asyncio.Event()
        self._going.set()
        self._inbox = Inbox(self._run, self._vitals)

    # -- what a test does to it

    def die(self, error: RayActorError | None = None) -> None:
        """Its process is gone: pending calls and new ones fail until it comes back, as Ray has it without retries."""
        self.dead = error or ActorUnavailableError("restarting", b"0" * 16)
        for call in list(self._pending):
            if not call.done():
                call.set_exception(self.dead)
        self._inbox, self.steps = Inbox(self._run, self._vitals), None

    def come_back(self, ready: bool = True) -> None:
        """As a new process, which has no engine unless `ready`."""
        self.dead, self.ready = None, ready
        self.go_on()

    def hang(self) -> None:
        """Its process is stopped: nothing returns, and Ray says nothing."""
        self.hung = True
        self._going.clear()

    def go_on(self) -> None:
        """The stopped process runs again, or another does."""
        self.hung = False
        self._going.set()

    @property
    def running(self) -> int:
        """Questions in its hands."""
        return self._inbox.running

    # -- what its handle has

    async def _exchange(self, caller: str, batch: Batch, wait_s: float) -> Replies:
        return await self._reply(lambda: self._take(caller, batch, wait_s))

    async def _health(self) -> Vitals:
        async def vitals() -> Vitals:
            return self._inbox.vitals()

        return await self._reply(vitals)

    async def _reply(self, work: Callable[[], Awaitable[Any]]) -> Any:
        if self.dead is not None:
            await asyncio.sleep(AWAY_S)
            raise self.dead or ActorUnavailableError("restarted", b"0" * 16)
        ended = asyncio.get_running_loop().create_future()
        self._pending.add(ended)
        working = asyncio.ensure_future(self._work(work))
        try:
            await asyncio.wait([working, ended], return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else working.result()
        finally:
            self._pending.discard(ended)
            working.cancel()

    async def _work(self, work: Callable[[], Awaitable[Any]]) -> Any:
        await self._going.wait()
        reply = await work()
        await self._going.wait()
        return reply

    async def _take(self, caller: str, batch: Batch, wait_s: float) -> Replies:
        self.batches.append(batch)
        return await self._inbox.exchange(caller, batch, wait_s)

    def _vitals(self) -> Vitals:
        return Vitals(ready=self.ready, steps=self.steps)

    async def _run(self, body: Any, begin: Callable[[], None]) -> Any:
        if not self.ready:
            raise NotReady("no engine")
        self.calls.append(body)
        try:
            answer = await self.answer(body)
            await self._going.wait()
            return answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Waits for what another task brings about."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # nobody signals it
            await asyncio.sleep(0.005)
