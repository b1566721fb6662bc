"""Hands staged versions to a sink in the background, so that the next step starts as soon as the copy is staged.

Invariants
- At most one version is being handed over, and at most one waits. A newer one replaces the waiting one, which is counted and whose
  buffer is free again.
- Versions reach the sink in rising order, with the checksum of their bytes. This thread waits for the checksum, not the learner.
- An error of the sink is raised in the learner, at its next call.

It knows nothing of workers; the sink does.
"""

import dataclasses
import threading
import time

from learners.weights.buffers import StagingPool
from protocol.interfaces import WeightSink
from protocol.packed import RunningChecksum
from protocol.shared import SharedBuffer
from protocol.types import WeightManifest


class Handover:
    """One background thread in front of a `WeightSink`. `pool`: where the versions' buffers come from and return to."""

    def __init__(self, sink: WeightSink, pool: StagingPool) -> None:
        self._sink, self._pool = sink, pool
        self._changed = threading.Condition()
        self._waiting: tuple[WeightManifest, SharedBuffer, RunningChecksum] | None = None
        self._lent: dict[int, SharedBuffer] = {}  # by version: the sink has them
        self._busy = False
        self._closed = False
        self._error: Exception | None = None
        self.published = 0
        self.superseded = 0
        self._thread = threading.Thread(target=self._work, name="handover", daemon=True)
        self._thread.start()

    def offer(self, manifest: WeightManifest, packed: SharedBuffer, checksum: RunningChecksum) -> None:
        """Leaves a version to be handed over, with the checksum to which all of its bytes were added, and returns at once."""
        with self._changed:
            self._raise_error()
            if self._waiting is not None:
                self.superseded += 1
                _, displaced, reading = self._waiting
                reading.hexdigest()  # its bytes are read no more
                self._pool.put(displaced)
            self._waiting = (manifest, packed, checksum)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Waits until everything offered was handed over, then ends the thread.

        Raises:
            TimeoutError: the sink did not take a version over in `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (self._waiting is not None or self._busy) and self._error is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"a staged version was not taken over by the sink within {timeout_s:g} s")
                self._changed.wait(left)
            self._closed = True
            self._changed.notify_all()
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise RuntimeError("handing a staged version over failed") from self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._closed:
                    self._changed.wait()
                if self._waiting is None:
                    return
                (manifest, packed, checksum), self._waiting, self._busy = self._waiting, None, True
            try:
                self._hand_over(dataclasses.replace(manifest, checksum=checksum.hexdigest()), packed)
            except Exception as error:  # noqa: BLE001 - kept, and raised in the learner's own thread
                with self._changed:
                    self._error, self._busy, self._waiting = error, False, None
                    self._changed.notify_all()
                return
            with self._changed:
                self._busy = False
                self.published += 1
                self._changed.notify_all()

    def _hand_over(self, manifest: WeightManifest, packed: SharedBuffer) -> None:
        self._lent[manifest.version] = packed
        for version in self._sink.publish(manifest, packed):
            buffer = self._lent.pop(version, None)  # None: a version of this group's life before it restarted
            if buffer is not None:
                self._pool.put(buffer)
