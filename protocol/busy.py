"""How long somebody has had something in hand: seconds with at least one thing, not summed over things.

Pure. It does not know what is in hand, and makes no share of it: who asks twice divides by the time in between.
"""

import time
from collections.abc import Callable


class BusyClock:
    """Starts with nothing in hand.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._total_s = 0.0

    def note(self, in_hand: int) -> None:
        """How many things are in hand from now on."""
        if in_hand > 0 and self._since is None:
            self._since = self._clock()
        elif in_hand <= 0 and self._since is not None:
            self._total_s += self._clock() - self._since
            self._since = None

    @property
    def seconds(self) -> float:
        """Busy seconds so far, those that still run among them."""
        return self._total_s if self._since is None else self._total_s + self._clock() - self._since
