"""Bytes that several processes of one node read without a copy: files in memory that have no name.

A `SharedBuffer` is a memfd and its mapping. Other processes of the same user open it through `/proc/PID/fd/N` while one that holds
it lives, and then hold it themselves. Invariants: no process leaves anything behind, however it ends, because the kernel frees
the memory with the last descriptor and mapping; a path whose descriptor now means another file is refused (`inode`).

It does not decide who may write when: the owner does. A reader that must not see a change waits for its turn, or takes a copy.
"""

import mmap
import os
from dataclasses import dataclass

_POPULATE = 0x8000  # MAP_POPULATE: the pages are mapped at once, not by one fault each


@dataclass(frozen=True, slots=True)
class SharedFile:
    """Where a `SharedBuffer` can be opened. `node` is Ray's id of the node; `path` means something only there."""

    path: str
    inode: int
    nbytes: int
    node: str = ""


class SharedBuffer:
    """Memory of a length fixed when it was made. Never closed explicitly: views may be in use; it goes with its last reference."""

    def __init__(self, descriptor: int, nbytes: int, writable: bool) -> None:
        self.nbytes, self.inode = nbytes, os.fstat(descriptor).st_ino
        self._descriptor, self._writable = descriptor, writable
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls, nbytes: int) -> "SharedBuffer":
        """New, zeroed, writable memory; `nbytes` is at least 1."""
        descriptor = os.memfd_create("advgame-weights", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, nbytes)
        return cls(descriptor, nbytes, writable=True)

    @classmethod
    def open(cls, file: SharedFile) -> "SharedBuffer":
        """Read-only; holds the memory from now on.

        Raises:
            FileNotFoundError: nobody holds it there any more, or the descriptor is another file's by now.
        """
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(descriptor)
        if (found.st_ino, found.st_size) != (file.inode, file.nbytes):
            os.close(descriptor)
            raise FileNotFoundError(f"{file.path}: another file than the one that was announced")
        return cls(descriptor, file.nbytes, writable=False)

    @property
    def view(self) -> memoryview:
        """The bytes; mapped when they are first asked for, because some only hold them."""
        if self._map is None:
            protection = mmap.PROT_READ | (mmap.PROT_WRITE if self._writable else 0)
            self._map = mmap.mmap(self._descriptor, self.nbytes, flags=mmap.MAP_SHARED | _POPULATE, prot=protection)
        return memoryview(self._map)

    def file(self, node: str = "") -> SharedFile:
        """How others find it, while this process holds it."""
        return SharedFile(f"/proc/{os.getpid()}/fd/{self._descriptor}", self.inode, self.nbytes, node)

    def __del__(self) -> None:
        os.close(self._descriptor)  # the mapping holds the memory for those who still have a view of it
