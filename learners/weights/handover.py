"""Hands staged versions to a sink in the background, so that the next step starts as soon as the copy is staged.

Invariants
- At most one version is being handed over, and at most one waits. A newer one replaces the waiting one, which is counted and whose
  buffer is free again.
- Versions reach the sink in rising order, with the checksum of their bytes. This thread waits for the checksum, not the learner.
- A version that cannot be handed over is tried again until a newer one supersedes it; the learner goes on. Any other error of the
  sink's is raised in the learner, at its next call.
- A buffer is written again only when the holder that it was left with says that nobody reads it. A holder that is gone cannot: what
  it held is let go, not reused. Its readers keep it.
- The newest version is left again with a holder that has lost it, as one that was restarted has.

It knows nothing of workers; the sink does.
"""

import dataclasses
import threading
import time

import structlog

from learners.weights.buffers import StagingPool
from protocol.errors import NotHandedOver
from protocol.interfaces import WeightSink
from protocol.packed import RunningChecksum
from protocol.shared import SharedBuffer
from protocol.types import Holding, WeightManifest

log = structlog.get_logger(__name__)

LOOK_S = 2.0  # between two looks at whether the newest version is still held: so long a restarted holder has none


@dataclasses.dataclass(slots=True)
class _Offer:
    """A version to be handed over. `tried`: it was, in vain as far as we know, so somebody may read its buffer."""

    manifest: WeightManifest
    buffer: SharedBuffer
    checksum: RunningChecksum
    tried: bool = False


@dataclasses.dataclass(slots=True)
class _Lent:
    """A version that was left, and with whom; "": nobody has said yet."""

    manifest: WeightManifest
    buffer: SharedBuffer
    holder: str


class Handover:
    """One background thread in front of a `WeightSink`.

    Args:
        pool: where the versions' buffers come from and return to.
        look_s: seconds between two looks at the holder.
    """

    def __init__(self, sink: WeightSink, pool: StagingPool, look_s: float = LOOK_S) -> None:
        self._sink, self._pool, self._look_s = sink, pool, look_s
        self._changed = threading.Condition()
        self._waiting: _Offer | None = None
        self._lent: dict[int, _Lent] = {}  # by version
        self._newest = 0  # version that was handed over
        self._holder = ""  # who answered last
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
                if not self._waiting.tried:
                    self._waiting.checksum.hexdigest()  # its bytes are read no more
                    self._pool.put(self._waiting.buffer)
            self._waiting = _Offer(manifest, packed, checksum)
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> None:
        """Waits until everything offered was handed over.

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
            self._raise_error()

    def close(self) -> None:
        """Ends the thread. What still waits is not handed over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise RuntimeError("handing a staged version over failed") from self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._closed and (self._waiting is None or self._waiting.tried):
                    self._changed.wait(self._look_s)
                if self._closed:
                    return
                offered, self._waiting = self._waiting, None
                self._busy = offered is not None
            taken = False
            try:
                if offered is None:
                    self._look()
                else:
                    checksum = offered.checksum.hexdigest()
                    taken = self._hand_over(dataclasses.replace(offered.manifest, checksum=checksum), offered.buffer)
            except Exception as error:  # noqa: BLE001 - kept, and raised in the learner's own thread
                with self._changed:
                    self._error, self._busy, self._waiting = error, False, None
                    self._changed.notify_all()
                return
            with self._changed:
                self._busy = False
                if taken:
                    self.published += 1
                elif offered is not None:
                    self._keep(offered)
                self._changed.notify_all()

    def _keep(self, failed: _Offer) -> None:
        """For another try, unless a newer version came."""
        if self._waiting is None:
            failed.tried = True
            self._waiting = failed
        else:
            self.superseded += 1

    def _hand_over(self, manifest: WeightManifest, packed: SharedBuffer) -> bool:
        lent = self._lent.setdefault(manifest.version, _Lent(manifest, packed, self._holder))
        try:
            holding = self._sink.publish(manifest, packed)
        except NotHandedOver as error:
            place = {"player": manifest.player, "version": manifest.version}
            log.warning("version_not_handed_over", **place, why=str(error))
            return False
        lent.holder, self._newest = holding.holder, manifest.version
        self._take_back(holding)
        return True

    def _look(self) -> None:
        """Leaves the newest version again where it is not held any more."""
        lent = self._lent.get(self._newest)
        if lent is None:
            return
        try:
            holding = self._sink.holding(lent.manifest.player)
        except NotHandedOver:
            return  # the next look, or version, will tell
        if self._newest not in holding.versions:  # its bytes are as they were: the newest is never written again
            log.warning("version_handed_over_again", player=lent.manifest.player, version=self._newest)
            self._hand_over(lent.manifest, lent.buffer)

    def _take_back(self, holding: Holding) -> None:
        self._holder = holding.holder
        for version in sorted(self._lent.keys() - holding.versions - {self._newest}):
            lent = self._lent.pop(version)
            if lent.holder == holding.holder:
                self._pool.put(lent.buffer)
            else:
                self._pool.drop(lent.buffer)
