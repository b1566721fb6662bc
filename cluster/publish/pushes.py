"""How pushes to single workers went: their seconds, and why one failed. It decides nothing (`delivery` does) and asks nobody."""

from collections import Counter
from collections.abc import Mapping

from ray.exceptions import RayActorError, RayTaskError

from cluster.publish.stats import PhaseTimes, PublisherStats, PushTimes
from protocol import metrics as m
from protocol.errors import DIGEST_MISMATCH
from protocol.meter import Meter, meter
from protocol.roles import Player

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


def tell_versions(stats: PublisherStats, to: Meter) -> None:
    """Sets the metrics of versions, and of who serves which."""
    for player, pushes in stats.players.items():
        to.set(m.VERSION, pushes.newest, player=player)
        to.total(m.SUPERSEDED, pushes.superseded, player=player)
        for worker in pushes.workers:
            to.set(m.WORKER_VERSION, worker.version, player=player, worker=worker.name)


def count_push(player: Player, took_s: float, pause_s: float, phases: Mapping[str, float], nbytes: int) -> None:
    """Sets the metrics of a push that a worker loaded."""
    to = meter()
    to.inc(m.PUSHES, player=player, outcome="loaded")
    to.inc(m.PUSH_BYTES, nbytes, player=player)
    to.observe(m.PAUSE_SECONDS, pause_s, player=player)
    for phase, seconds in {**phases, "whole": took_s}.items():
        to.observe(m.PUSH_SECONDS, seconds, player=player, phase=phase)


def count_failure(player: Player, reason: str) -> None:
    """Sets the metrics of a push, or of a start with its first version, that failed."""
    meter().inc(m.PUSHES, player=player, outcome=reason)
    if reason.removeprefix("start_") == DIGEST_MISMATCH:
        meter().inc(m.DIGEST_MISMATCHES, player=player)


def reason_of(error: BaseException) -> str:
    """Why a worker is replaced, in one word."""
    if isinstance(error, RayActorError):
        return "died"
    if isinstance(error, RayTaskError):
        cause = error.cause
        return str(getattr(cause, "reason", type(cause).__name__))
    return "deadline" if isinstance(error, TimeoutError) else str(getattr(error, "reason", type(error).__name__))
