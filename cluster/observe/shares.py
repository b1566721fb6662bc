"""Shares of the last moments from counts of seconds that only grow: of waiting, of work.

Pure; the clock is the caller's."""

from collections import deque
from collections.abc import Mapping

SPAN_S = 30.0  # long enough for several steps of a small run, short enough that a change shows


class Shares:
    """Keeps the counts of the last `span_s` seconds.

    Args:
        span_s: how far back a share reaches, at most and as soon as the counts do.
    """

    def __init__(self, span_s: float = SPAN_S) -> None:
        self._span_s = span_s
        self._kept: deque[tuple[float, Mapping[str, float]]] = deque()

    def note(self, now_s: float, seconds: Mapping[str, float]) -> None:
        """The counts at `now_s`, by name. The same moment again changes nothing."""
        if self._kept and now_s <= self._kept[-1][0]:
            return
        # A count that fell belongs to a part that started anew: what was kept of it says nothing about what comes.
        fell = {name for name, value in seconds.items() if self._kept and value < self._kept[-1][1].get(name, value)}
        if fell:
            kept = [(at, {n: v for n, v in values.items() if n not in fell}) for at, values in self._kept]
            self._kept = deque(kept)
        self._kept.append((now_s, dict(seconds)))
        while len(self._kept) > 2 and self._kept[1][0] <= now_s - self._span_s:
            self._kept.popleft()

    def of(self, name: str) -> float | None:
        """The share of a name; None where it was not counted at both ends."""
        if len(self._kept) < 2:
            return None
        (began, first), (now, last) = self._kept[0], self._kept[-1]
        if name not in first or name not in last:
            return None
        return min(1.0, max(0.0, (last[name] - first[name]) / (now - began)))

    def mean(self, names: list[str]) -> float | None:
        """The mean share of those names that have one; None if none has."""
        known = [share for share in map(self.of, names) if share is not None]
        return sum(known) / len(known) if known else None
