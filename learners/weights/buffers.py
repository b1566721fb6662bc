"""The buffers that staged versions lie in: shared memory, reused, because its first touch costs as much as many copies.

Invariants
- A buffer is written only while nobody reads it: `StagingPool` gives out free ones, and its owner puts each back when it is free.
- Two are what a run needs: the newest version, which delivery keeps for workers that restart, and the one being staged. More exist
  only while slow workers still read older versions, so at most one more for each worker.

It does not know who reads, and imports torch only where a GPU's learner asks for a buffer.
"""

import threading
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from protocol.shared import SharedBuffer

log = structlog.get_logger(__name__)

_FREE = 2  # kept for the next versions


class StagingPool:
    """Shared buffers of one length, which many versions in turn lie in. Of any thread.

    Args:
        lock_pages: a GPU writes them; copies into locked pages run at the bus's speed.
    """

    def __init__(self, lock_pages: bool = False) -> None:
        self._lock_pages = lock_pages
        self._lock = threading.Lock()
        self._free: list[SharedBuffer] = []

    def take(self, nbytes: int) -> SharedBuffer:
        """A buffer that nobody reads."""
        with self._lock:
            while self._free:
                buffer = self._free.pop()
                if buffer.nbytes == nbytes:
                    return buffer
        buffer = SharedBuffer.create(nbytes)
        if self._lock_pages:
            _lock(buffer)
        return buffer

    def put(self, buffer: SharedBuffer) -> None:
        """Nobody reads it any more."""
        with self._lock:
            if len(self._free) < _FREE:
                self._free.append(buffer)


def array_of(buffer: SharedBuffer) -> NDArray[np.uint8]:
    """Its bytes; writable where the buffer is."""
    return np.frombuffer(buffer.view, np.uint8)


def _lock(buffer: SharedBuffer) -> None:
    """Locks its pages, for faster copies. Where that is not allowed, copies are slower and nothing else changes."""
    import torch

    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    error = runtime.cudaHostRegister(array_of(buffer).ctypes.data, buffer.nbytes, 0)
    if int(error) != 0:
        log.warning("staging buffer not page-locked", cuda_error=int(error))
