"""The bytes of published versions, as the publisher holds them: on its own node, and in Ray's object store for the others."""

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from protocol.shared import SharedBuffer
from protocol.types import WeightManifest


@dataclass
class HeldVersion:
    """A version and its bytes."""

    manifest: WeightManifest
    buffer: SharedBuffer
    _stored: asyncio.Future[Any] | None = None

    async def store(self) -> Any:
        """An object ref to the bytes; they are put in the object store when a worker of another node first wants them."""
        if self._stored is None:
            self._stored = asyncio.ensure_future(asyncio.to_thread(_put, self.buffer))
        return await self._stored


def _put(buffer: SharedBuffer) -> Any:
    return ray.put(np.frombuffer(buffer.view, np.uint8))


async def copy_from_store(ref: Any) -> SharedBuffer:
    """A copy of our own of bytes that lie in Ray's object store, whose owner may go."""
    array = await ref
    buffer = SharedBuffer.create(array.nbytes)
    await asyncio.to_thread(np.copyto, np.frombuffer(buffer.view, np.uint8), array)
    return buffer
