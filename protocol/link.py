"""A worker as its callers see it: found and watched through its Ray handle, asked over a channel of its own.

Invariants:
- a call is never left waiting for a worker whose process Ray knows to be gone: it ends with `Lost`;
- a worker that came back under the same handle is found again by the next call;
- however many calls come at once, one connection is made.

It does not retry, choose or time calls: `actors.clients` and `judge.pool` do. It knows Ray only by two methods of the handle, see
`Reachable`.
"""

import asyncio
from typing import Any

from protocol.channel import Address, Channel, Server, connect

HOLD_S = 60.0  # a call that lasts this long, again and again: it is what fails when the process dies


class Reachable:
    """What a worker must be for a `Link`: a mixin. `DIRECT` names the methods, of one argument each, that a channel may call."""

    DIRECT: tuple[str, ...] = ()
    _server: Server | None = None

    async def listen(self, host: str) -> Address:
        """Where this worker answers; listens there, at an address of its own node, from now on."""
        if self._server is None:
            self._server = Server(self, self.DIRECT)
        return await self._server.open(host)

    async def hold(self, wait_s: float) -> None:
        """Lasts so long. A caller learns from it that the process died, also where the network does not say so."""
        await asyncio.sleep(wait_s)


class Link:
    """One worker's handle. Picklable while no call was made; may be used on one event loop after another."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._channel: Channel | None = None
        self._connecting: asyncio.Task[Channel] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def call(self, method: str, argument: Any) -> Any:
        """What the worker's method gives. If the caller is cancelled, so is the method.

        Raises:
            Lost: the worker is gone, or was before it answered.
            Exception: what Ray says of a worker that cannot be found, or what the method raised.
        """
        channel, loop = self._channel, asyncio.get_running_loop()
        if channel is None or channel.lost is not None or channel.loop is not loop:
            if self._connecting is None or self._connecting.done() or self._connecting.get_loop() is not loop:
                self._connecting = loop.create_task(self._connect())
                self._connecting.add_done_callback(_seen)
            channel = await asyncio.shield(self._connecting)  # others wait for it too
        return await channel.call(method, argument)

    async def _connect(self) -> Channel:
        channel = await connect(await self._handle.channel.remote())
        self._watch = asyncio.get_running_loop().create_task(self._hold(channel))
        self._channel = channel
        return channel

    async def _hold(self, channel: Channel) -> None:
        hold = self._handle.hold.options(max_task_retries=0)  # a retry would wait for the next process instead
        try:
            while channel.lost is None:
                await hold.remote(HOLD_S)
        except Exception as error:  # noqa: BLE001 - whatever ended it: the callers are told, and ask the handle again
            channel.fail(type(error).__name__)


def _seen(task: asyncio.Task[Channel]) -> None:
    """Else asyncio prints an error that nobody waited for any more."""
    if not task.cancelled():
        task.exception()
