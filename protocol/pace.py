"""How long to wait before something is done again, in two cases: so that more travels in one call, and after failures. Pure."""

WEIGHT = 0.05  # of one duration in the average


class Pace:
    """How long to gather before a call: a share of what one thing takes on the average of the latest, within bounds. Seconds.

    Args:
        least_s, most_s: the bounds.
        share: of the average.
    """

    def __init__(self, least_s: float, most_s: float, share: float) -> None:
        self._least_s, self._most_s, self._share = least_s, most_s, share
        self._took_s = 0.0

    def note(self, took_s: float) -> None:
        """One took so long."""
        self._took_s += WEIGHT * (took_s - self._took_s)

    def wait_s(self, longer: float = 1.0) -> float:
        """How long to gather. `longer` multiplies the share, not the bounds."""
        return min(self._most_s, max(self._least_s, longer * self._share * self._took_s))


def backoff_s(first_s: float, most_s: float, failures: int) -> float:
    """The pause after a failure that came after `failures` others in a row: twice the last one's, at most `most_s`."""
    doublings = min(failures, 64)  # a float's exponent ends somewhere, and days of failures do not
    return min(most_s, first_s * 2.0**doublings)
