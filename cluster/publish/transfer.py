"""The publisher's side of a version that its learner sends itself, GPU to GPU; the learner's side is `native`.

It keeps who waits for the version and how the learner sends it. It asks nobody, and decides nothing about workers (`delivery`).
"""

import asyncio

from protocol.types import NativeUpdate


class NativeTransfer:
    """One version of one player.

    Attributes:
        version: which.
        pushes: the pushes that wait for the learner, by worker.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.pushes: dict[str, asyncio.Task[None]] = {}
        self._update: asyncio.Future[NativeUpdate | None] = asyncio.get_running_loop().create_future()

    def settle(self, update: NativeUpdate | None) -> bool:
        """The learner sends it so; None: it cannot. False if it was settled before, and nothing changes."""
        if self._update.done():
            return False
        self._update.set_result(update)
        return True

    async def wait(self, limit_s: float) -> NativeUpdate | None:
        """How the learner sends it; None if it cannot, or has not said so after `limit_s` seconds: then it may not any more."""
        await asyncio.wait([self._update], timeout=limit_s)
        self.settle(None)
        return self._update.result()

    async def wait_for_pushes(self) -> None:
        """Returns when every push has ended, well or not."""
        await asyncio.gather(*self.pushes.values(), return_exceptions=True)
