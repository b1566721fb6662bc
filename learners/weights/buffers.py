"""The buffers that staged versions lie in: shared memory, reused, because its first touch costs as much as many copies.

Invariants
- A buffer is written only while nobody reads it: `StagingPool` gives out free ones, and its owner puts each back when it is free.
- Two are what a run needs: the newest version, which delivery keeps for workers that restart, and the one being staged. More exist
  only while slow workers still read older versions, so at most one more for each worker.
- What was locked is unlocked when it is dropped: the driver would keep its pages for ever.

It does not know who reads, and imports torch only where a GPU's learner asks for a buffer.
"""

from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from protocol.shared import SharedBuffer, SharedPool

log = structlog.get_logger(__name__)


class StagingPool(SharedPool):
    """`SharedPool` of a learner.

    Args:
        lock_pages: a GPU writes them; copies into locked pages run at the bus's speed.
    """

    def __init__(self, lock_pages: bool = False) -> None:
        super().__init__()
        self._lock_pages = lock_pages
        self._locked: set[int] = set()  # inodes

    def make(self, nbytes: int) -> SharedBuffer:
        """A new one, locked where that is wanted and allowed."""
        buffer = super().make(nbytes)
        if self._lock_pages and _call_cuda("cudaHostRegister", _address(buffer), nbytes, 0):
            self._locked.add(buffer.inode)
        return buffer

    def drop(self, buffer: SharedBuffer) -> None:
        """Unlocks its pages."""
        if buffer.inode in self._locked:
            self._locked.discard(buffer.inode)
            _call_cuda("cudaHostUnregister", _address(buffer))


def array_of(buffer: SharedBuffer) -> NDArray[np.uint8]:
    """Its bytes; writable where the buffer is."""
    return np.frombuffer(buffer.view, np.uint8)


def _address(buffer: SharedBuffer) -> int:
    return int(array_of(buffer).ctypes.data)


def _call_cuda(function: str, *args: int) -> bool:
    """Whether CUDA's runtime did it. Where locking is not allowed, copies are slower and nothing else changes."""
    import torch

    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    error = int(getattr(runtime, function)(*args))
    if error != 0:
        log.warning("page-locking failed", function=function, cuda_error=error)
    return error == 0
