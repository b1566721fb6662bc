"""When a run's placement groups are all there, waited for, given back, or given up. Pure: the time comes in as a number.

    request all ──► WAIT ──► DONE        every group is placed
                     │ ▲
                     ▼ │
                   GIVE_BACK             some are placed and the others are not: nothing is held, and all are asked for anew
                     │
                     ▼ limit
                   GIVE_UP

Invariant: a run that does not have all of its groups holds none of them for longer than `HOLD_S`. Two runs that each hold half of
what the other needs would wait for each other for ever. A group that is only asked for holds nothing, and shows the autoscaler
what is missing: it stays asked for as long as it takes.
"""

from dataclasses import dataclass
from enum import Enum, auto

HOLD_S = (
    20.0  # a busy cluster places all that it has room for in a second or two; whoever is late may be waiting for us
)
PAUSE_S = (1.0, 6.0)  # before all are asked for anew, by chance: two runs must not come back at the same time


class Step(Enum):
    """What to do now."""

    DONE = auto()
    WAIT = auto()
    GIVE_BACK = auto()
    GIVE_UP = auto()


@dataclass(slots=True)
class Reserving:
    """One run's wait for its placement groups.

    Args:
        wanted: groups.
        limit_s: `run.placement_s`.
        now_s: when it began.
    """

    wanted: int
    limit_s: float
    now_s: float
    _held_since_s: float | None = None

    def look(self, placed: int, now_s: float) -> Step:
        """What follows, if so many of the groups are placed."""
        if placed == self.wanted:
            return Step.DONE
        if now_s - self.now_s >= self.limit_s:
            return Step.GIVE_UP
        if not placed:
            self._held_since_s = None
            return Step.WAIT
        if self._held_since_s is None:
            self._held_since_s = now_s
        if now_s - self._held_since_s < HOLD_S:
            return Step.WAIT
        self._held_since_s = None
        return Step.GIVE_BACK
