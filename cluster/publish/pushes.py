"""What the publisher knows of single versions and pushes: held bytes, who waits for a learner's own sending, times, reasons.

It decides nothing (`delivery` does) and asks nobody.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError

from cluster.publish.stats import PhaseTimes, PushTimes
from protocol.shared import SharedBuffer
from protocol.types import NativeUpdate, WeightManifest

PHASE = "phase/"  # before the names of phases, beside the whole and its pause


@dataclass
class Version:
    """Held bytes. `ref`: their copy in Ray's object store, once a worker of another node wanted one."""

    manifest: WeightManifest
    buffer: SharedBuffer
    ref: asyncio.Future[Any] | None = None


class Round:
    """A version that its learner is to send itself: the pushes that wait for it, by worker, and how it sends; None: it cannot."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.pushes: dict[str, asyncio.Task[None]] = {}
        self.bytes: asyncio.Future[NativeUpdate | None] = asyncio.get_running_loop().create_future()


class PushTimer:
    """Adds up the seconds of pushes to single workers."""

    def __init__(self) -> None:
        self._count = self._moved = 0
        self._last: dict[str, float] = {}
        self._sums: Counter[str] = Counter()

    def add(self, total_s: float, pause_s: float, moved: bool, phases: Mapping[str, float]) -> None:
        """One push: from sending to its answer, how long generation stood still, whether the weights changed, its phases."""
        self._count += 1
        self._moved += moved
        self._last = {"total": total_s, "pause": pause_s, **{PHASE + name: s for name, s in phases.items()}}
        self._sums.update(self._last)

    def read(self) -> PushTimes:
        """The seconds so far."""
        if not self._last:
            return PushTimes()
        mean = {name: value / self._count for name, value in self._sums.items()}
        phases = [name for name in self._last if name.startswith(PHASE)]
        return PushTimes(
            self._count,
            self._moved,
            self._last["total"],
            self._last["pause"],
            mean["total"],
            mean["pause"],
            {name.removeprefix(PHASE): PhaseTimes(self._last[name], mean[name]) for name in phases},
        )


async def fetched(ref: Any) -> SharedBuffer:
    """A copy of our own of bytes that lie in Ray's object store, whose owner may go."""
    array = await ref
    buffer = SharedBuffer.create(array.nbytes)
    await asyncio.to_thread(np.copyto, np.frombuffer(buffer.view, np.uint8), array)
    return buffer


def put(buffer: SharedBuffer) -> Any:
    return ray.put(np.frombuffer(buffer.view, np.uint8))


def reason_of(error: BaseException) -> str:
    """Why a worker is replaced, in one word."""
    if isinstance(error, RayActorError):
        return "died"
    if isinstance(error, RayTaskError):
        cause = error.cause
        return str(getattr(cause, "reason", type(cause).__name__))
    return "deadline" if isinstance(error, TimeoutError) else type(error).__name__
