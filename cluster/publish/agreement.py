"""Whether workers that serve the same version hold the same parameters.

Workers of a version with the same dtype and parallel layout must have equal digests; each says its own before it serves. Where two
differ, nobody knows who is wrong: the one that says what fewer loads said, or said it later. A worker that is told so starts anew
and loads again; if that gives the same digest again, the other one is outvoted. Pure.
"""

from collections import Counter
from dataclasses import dataclass, field

from protocol.roles import Player

KEPT = 8  # versions back: no worker is further behind and still reports


@dataclass(slots=True)
class _Count:
    """Of one version and layout: loads that gave a digest, in the order they first came, and what each worker holds."""

    loads: Counter[str] = field(default_factory=Counter)
    held: dict[str, str] = field(default_factory=dict)

    def agreed(self) -> str:
        return max(self.loads, key=lambda digest: self.loads[digest])  # of equals the first that came


class Agreement:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Player, int, str], _Count] = {}

    def report(self, player: Player, version: int, layout: str, worker: str, digest: str) -> bool:
        """A worker loaded a version. Whether it may serve it. Said twice of one load, it counts once.

        Args:
            layout: dtype, parallel layout and device: what else a digest depends on.
        """
        self._forget_old(player, version)
        count = self._counts.setdefault((player, version, layout), _Count())
        if count.held.get(worker) != digest:
            count.held[worker] = digest
            count.loads[digest] += 1
        return digest == count.agreed()

    def list_dissenters(self, player: Player, version: int, layout: str) -> list[str]:
        """Workers that hold another digest of it than the agreed one."""
        count = self._counts[player, version, layout]
        return [worker for worker, digest in count.held.items() if digest != count.agreed()]

    def forget(self, worker: str) -> None:
        """It starts anew: its next report is another load's. What it said before was said."""
        for count in self._counts.values():
            count.held.pop(worker, None)

    def _forget_old(self, player: Player, version: int) -> None:
        for key in [k for k in self._counts if k[0] == player and k[1] < version - KEPT]:
            del self._counts[key]
