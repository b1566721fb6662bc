"""How pushes to single workers went: their seconds, and why one failed. It decides nothing (`delivery` does) and asks nobody."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayActorError, RayTaskError


class PushTimes:
    """Seconds of pushes to single workers: last and mean."""

    def __init__(self) -> None:
        self._count = self._moved = 0
        self._last: dict[str, float] = {}
        self._sums: Counter[str] = Counter()

    def add(self, total_s: float, pause_s: float, moved: bool, phases: Mapping[str, float]) -> None:
        """One push: from sending to its answer, how long generation stood still, whether the weights changed, its phases."""
        self._count += 1
        self._moved += moved
        self._last = {"total": total_s, "pause": pause_s, **{f"phase/{name}": s for name, s in phases.items()}}
        self._sums.update(self._last)

    def read(self) -> dict[str, Any]:
        """count; after the first push also how many ``moved`` the weights (by checksum), ``total_s`` and ``pause_s`` (generation
        stood still) of the last, ``mean_total_s`` and ``mean_pause_s``, and ``phases``: name -> {"last_s", "mean_s"}.
        """
        if not self._last:
            return {"count": 0}
        mean = {name: value / self._count for name, value in self._sums.items()}
        names = [name for name in self._last if name.startswith("phase/")]
        return {
            "count": self._count,
            "moved": self._moved,
            "total_s": self._last["total"],
            "pause_s": self._last["pause"],
            "mean_total_s": mean["total"],
            "mean_pause_s": mean["pause"],
            "phases": {n.removeprefix("phase/"): {"last_s": self._last[n], "mean_s": mean[n]} for n in names},
        }


def reason_of(error: BaseException) -> str:
    """Why a worker is replaced, in one word."""
    if isinstance(error, RayActorError):
        return "died"
    if isinstance(error, RayTaskError):
        cause = error.cause
        return str(getattr(cause, "reason", type(cause).__name__))
    return "deadline" if isinstance(error, TimeoutError) else type(error).__name__
