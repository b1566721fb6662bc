"""Group commit and change signals: the two waits of the replay actor, for use inside one event loop.

Group commit: writers write at once and wait here; one fsync, in a thread, serves all who wrote before it began. It
begins at most `delay_s` after the first of them came, or at once when one of them is in a hurry (`hurry`).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress


class GroupCommit:
    """See the module's docstring. An error of `sync` is raised in every waiter that it failed."""

    def __init__(self, sync: Callable[[], None], delay_s: float) -> None:
        self._sync, self._delay_s = sync, delay_s
        self._waiters: list[asyncio.Future[None]] = []
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def commit(self, hurry: bool = False) -> None:
        """Returns when everything written before this call is durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(done)
        if hurry:
            self._hurry.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        served: list[asyncio.Future[None]] = []
        try:
            while self._waiters:
                if self._delay_s > 0:
                    with suppress(TimeoutError):  # nobody was in a hurry
                        await asyncio.wait_for(self._hurry.wait(), self._delay_s)
                self._hurry.clear()
                served, self._waiters = self._waiters, []
                error: Exception | None = None
                try:
                    await asyncio.to_thread(self._sync)
                except Exception as failure:  # noqa: BLE001  # whatever it is, they must hear of it: they would wait for ever
                    error = failure
                for waiter in served:
                    if waiter.done():  # its caller was cancelled
                        continue
                    if error is None:
                        waiter.set_result(None)
                    else:
                        waiter.set_exception(error)
        except asyncio.CancelledError:
            for waiter in (*served, *self._waiters):
                waiter.cancel()
            raise


class ChangeSignal:
    """Wakes everybody who waits for "something changed"."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wakes all who wait now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Returns at the next change, or after `timeout_s` seconds."""
        with suppress(TimeoutError):  # the caller looks at its own deadline
            await asyncio.wait_for(self._event.wait(), timeout_s)
