"""Whether a player's versions go GPU to GPU: not any more after two failures, until the set of its workers changes.

    on ──failure, failure──► off ──a worker is new, or started anew──► on

A worker that the transport itself brought down does not count as a change: it would bring down the next one, too. Pure.
"""

from dataclasses import dataclass

FAILURES = 2  # one may be a worker that died just then


@dataclass(slots=True)
class Fallback:
    """One player's native transport.

    Attributes:
        transport: that the recipe asks for.
        failures: since it was switched on.
        failed: in all.
        off_since: the version after which it was switched off; None: it is on.
    """

    transport: str
    failures: int = 0
    failed: int = 0
    off_since: int | None = None
    _judged: int = 0

    def record(self, version: int, sent: bool) -> bool:
        """A version was sent, or could not be; the first word about a version counts. True: it is off from now on."""
        if version <= self._judged:
            return False
        self._judged = version
        if sent:
            self.failures = 0
            return False
        self.failures += 1
        self.failed += 1
        if self.failures < FAILURES or self.off_since is not None:
            return False
        self.off_since = version
        return True

    def note_change(self) -> bool:
        """The set of workers is another one. True: the transport is on again."""
        was_off, self.off_since, self.failures = self.off_since is not None, None, 0
        return was_off
