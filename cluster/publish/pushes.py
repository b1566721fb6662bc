"""How pushes to single workers went: their seconds, and why one failed. It decides nothing (`delivery` does) and asks nobody."""

from collections import Counter
from collections.abc import Mapping

from ray.exceptions import RayActorError, RayTaskError

from cluster.publish.stats import PhaseTimes, PushTimes

PHASE = "phase/"  # before the names of phases, beside the whole and its pause


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


def reason_of(error: BaseException) -> str:
    """Why a worker is replaced, in one word."""
    if isinstance(error, RayActorError):
        return "died"
    if isinstance(error, RayTaskError):
        cause = error.cause
        return str(getattr(cause, "reason", type(cause).__name__))
    return "deadline" if isinstance(error, TimeoutError) else type(error).__name__
