"""The bytes of versions on one node: what a learner there left, or one copy of what lies on another node.

On the publisher's own node a `Holder` lives in its process, and moves nothing there; on every other node that has a worker or a
learner it is an actor. Invariants:

- **one copy a node**, whatever its number of workers: they open the holder's;
- **the loop never stands still**: mapping, copying and letting go are done in threads, and bytes travel in chunks;
- **memory is used again**: a copy lies where an older version's lay.

It decides nothing: what is held, and for how long, the publisher says (`versions`).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import VersionGone
from protocol.roles import Player
from protocol.shared import SharedBuffer, SharedFile, SharedPool

CHUNK_BYTES = 16 << 20  # of one message; the object stores hold WINDOW of them, not a whole version
WINDOW = 4

Key = tuple[Player, int]


class Holder:
    """See the module's docstring. `node`: Ray's id of the node that it is on."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._pool = SharedPool()
        self._held: dict[Key, SharedBuffer] = {}
        self._copies: set[Key] = set()  # in our own memory

    async def hold(self, player: Player, version: int, file: SharedFile) -> SharedFile:
        """Keeps what its owner made, however it ends. Its owner leaves it as it is until it is dropped.

        Raises:
            FileNotFoundError: it is gone.
        """
        buffer = self._held[player, version] = SharedBuffer.open(file)
        return buffer.file(self._node)

    async def copy(self, player: Player, version: int, nbytes: int, source: Any) -> SharedFile:
        """Fetches a version from the holder of another node. `source` has its `read`."""
        buffer = await asyncio.to_thread(self._take, nbytes)
        whole, window = _array_of(buffer), asyncio.Semaphore(WINDOW)

        async def fetch(offset: int) -> None:
            async with window:
                part = await source.read.remote(player, version, offset, min(CHUNK_BYTES, nbytes - offset))
                await asyncio.to_thread(np.copyto, whole[offset : offset + len(part)], part)

        try:
            async with asyncio.TaskGroup() as parts:
                for offset in range(0, nbytes, CHUNK_BYTES):
                    parts.create_task(fetch(offset))
        except BaseException:
            self._pool.put(buffer)
            raise
        self._held[player, version] = buffer
        self._copies.add((player, version))
        return buffer.file(self._node)

    async def read(self, player: Player, version: int, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """A part of a version's bytes.

        Raises:
            VersionGone: it is not held here.
        """
        buffer = self._held.get((player, version))
        if buffer is None:
            raise VersionGone(player, version)
        return (await asyncio.to_thread(_array_of, buffer))[offset : offset + nbytes]

    async def alive(self) -> None:
        """Returns."""

    async def drop(self, keys: Sequence[Key]) -> None:
        """Nobody needs these any more."""
        dropped = [(key in self._copies, self._held.pop(key)) for key in keys if key in self._held]
        self._copies.difference_update(keys)
        await asyncio.to_thread(self._let_go, dropped)

    def _take(self, nbytes: int) -> SharedBuffer:
        buffer = self._pool.take(nbytes)
        buffer.view  # noqa: B018  # maps it
        return buffer

    def _let_go(self, dropped: list[tuple[bool, SharedBuffer]]) -> None:
        while dropped:
            ours, buffer = dropped.pop()
            if ours:
                self._pool.put(buffer)
            del buffer  # the last reference frees gigabytes: here, not in the loop


def _array_of(buffer: SharedBuffer) -> NDArray[np.uint8]:
    return np.frombuffer(buffer.view, np.uint8)
