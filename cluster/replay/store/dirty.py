"""Whether a file has bytes that no fsync covers yet."""

import os


class DirtyFlag:
    """`mark` after (or before) each write. `sync` may run in another thread than the writes."""

    def __init__(self) -> None:
        self._dirty = False

    def mark(self) -> None:
        """The file was written to."""
        self._dirty = True

    def sync(self, fd: int) -> None:
        """Fsyncs the file if it was written to. What was marked before this call is on disk when it returns."""
        if self._dirty:
            self._dirty = False  # first: a write during the fsync sets it again
            try:
                os.fsync(fd)
            except OSError:
                self._dirty = True
                raise
