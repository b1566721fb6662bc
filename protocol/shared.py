"""Bytes that several processes of one node read without a copy: files in memory that have no name.

A `SharedBuffer` is a memfd and its mapping. Other processes of the same user open it through `/proc/PID/fd/N` while one that holds
it lives, and then hold it themselves. Invariants: no process leaves anything behind, however it ends, because the kernel frees
the memory with the last descriptor and mapping; a path whose descriptor now means another file is refused (`inode`).

Gigabytes take seconds to be mapped and to be let go, so neither holds Python's interpreter lock: an event loop whose thread maps a
buffer elsewhere goes on.

It does not decide who may write when: the owner does. A reader that must not see a change waits for its turn, or takes a copy.
"""

import ctypes
import mmap
import os
import threading
from dataclasses import dataclass

import numpy as np

# <linux/mman.h>. Python's own `mmap` and `madvise` hold the interpreter lock while the kernel makes or drops the pages.
_DONTNEED, _POPULATE_READ, _POPULATE_WRITE = 4, 22, 23
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


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
        self._address = 0
        self._mapping = threading.Lock()  # of two threads that ask for the view at once, one maps

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
        """The bytes; mapped when they are first asked for, because some only hold them. Gigabytes then take seconds."""
        with self._mapping:
            if self._map is None:
                protection = mmap.PROT_READ | (mmap.PROT_WRITE if self._writable else 0)
                self._map = mmap.mmap(self._descriptor, self.nbytes, flags=mmap.MAP_SHARED, prot=protection)
                # By numpy, because ctypes alone does not tell the address of what is read-only.
                self._address = int(np.frombuffer(self._map, np.uint8).ctypes.data)
                # All pages at once, not by one fault each. A kernel before 5.14 refuses, and they come one by one.
                self._advise(_POPULATE_WRITE if self._writable else _POPULATE_READ)
        return memoryview(self._map)

    def file(self, node: str = "") -> SharedFile:
        """How others find it, while this process holds it."""
        return SharedFile(f"/proc/{os.getpid()}/fd/{self._descriptor}", self.inode, self.nbytes, node)

    def _advise(self, advice: int) -> None:
        _libc.madvise(self._address, self.nbytes, advice)

    def __del__(self) -> None:
        if self._map is not None:
            self._advise(
                _DONTNEED
            )  # so that little is left to do when the mapping goes; a view that is in use maps anew
            self._map = None
        os.close(self._descriptor)  # a mapping holds the memory for those who still have a view of it


class SharedPool:
    """Shared buffers of one length, for many versions in turn: new memory costs as much as many copies. Of any thread.

    Args:
        keep: free ones that are kept for the next.
    """

    def __init__(self, keep: int = 2) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._free: list[SharedBuffer] = []

    def take(self, nbytes: int) -> SharedBuffer:
        """A buffer that nobody reads."""
        found, others = None, []
        with self._lock:
            while self._free and found is None:
                buffer = self._free.pop()
                if buffer.nbytes == nbytes:
                    found = buffer
                else:
                    others.append(buffer)
        for buffer in others:
            self.drop(buffer)
        return self.make(nbytes) if found is None else found

    def put(self, buffer: SharedBuffer) -> None:
        """Nobody reads it any more."""
        with self._lock:
            if len(self._free) < self._keep:
                self._free.append(buffer)
                return
        self.drop(buffer)

    def fill(self, nbytes: int) -> None:
        """Makes the buffers that are kept, their pages too, before they are needed."""
        made = [self.take(nbytes) for _ in range(self._keep)]
        for buffer in made:
            buffer.view  # noqa: B018  # maps it
            self.put(buffer)

    def make(self, nbytes: int) -> SharedBuffer:
        """A new one."""
        return SharedBuffer.create(nbytes)

    def drop(self, buffer: SharedBuffer) -> None:
        """It is not used again here. Readers that have it open keep it."""
