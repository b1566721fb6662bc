"""A worker in this process, seen as its Ray handle is: only the handle is fake, the channel to it is real."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from protocol.channel import Address
from protocol.link import Reachable


class Remote:
    """`handle.method.remote(...)` as Ray has it, for a coroutine function."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method

    def options(self, **options: Any) -> "Remote":
        assert options == {"max_task_retries": 0}
        return self

    def remote(self, *args: Any) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self._method(*args))


class DirectHandle(Reachable):
    """The handle of a worker; subclasses have the methods that `DIRECT` names."""

    DIRECT = ("generate", "judge")

    def __init__(self) -> None:
        self.channel, self.hold = Remote(self._channel), Remote(self._hold)  # type: ignore[assignment, method-assign]
        self.dead: Exception | None = None  # what Ray says of it
        self.found = 0  # how often somebody asked where it is
        self._died = asyncio.Event()

    def die(self, error: Exception) -> None:
        """Ray finds out that the process is gone; the network says nothing."""
        self.dead = error
        self._died.set()

    def come_back(self) -> None:
        """As a new process, at another address."""
        self.dead, self._server = None, None
        self._died.clear()

    async def _channel(self) -> Address:
        self.found += 1
        await asyncio.sleep(0)
        if self.dead is not None:
            raise self.dead
        return await self.listen("127.0.0.1")

    async def _hold(self, wait_s: float) -> None:
        await asyncio.wait_for(self._died.wait(), wait_s)
        assert self.dead is not None
        raise self.dead
