"""What the publisher tells about itself: versions, pushes and workers of each player, and the learners' reports it passes on.

Frozen and picklable; a `PublisherStats()` without arguments stands for a publisher that has not answered yet.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cluster.publish.delivery import State
from protocol.roles import PLAYERS, Player


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one learner step reported.

    Attributes:
        step: steps done with it.
        version: newest policy version then.
        time_s: when it was reported, Unix seconds.
        metrics: by name, as the learner measured them.
    """

    player: Player
    step: int
    version: int
    time_s: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What one step of a learner's warm start reported: `done` of `wanted` steps, and its mean negative log-likelihood, nats."""

    player: Player
    done: int
    wanted: int
    nll: float


@dataclass(frozen=True, slots=True)
class WarmStart:
    """How far a learner's warm start is: supervised steps before the game, which are no steps of the run.

    Attributes:
        done, wanted: steps; 0 where there is none, or none yet.
        first_nll, nll: mean negative log-likelihood of the examples' tokens in its first and its newest step, nats.
    """

    done: int = 0
    wanted: int = 0
    first_nll: float | None = None
    nll: float | None = None


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """Seconds of one phase of a push: of the last, and their mean."""

    last_s: float
    mean_s: float


@dataclass(frozen=True, slots=True)
class PushTimes:
    """Pushes of a player's versions to single workers. Seconds are None before the first.

    Attributes:
        count: pushes.
        moved: those of them that changed the weights, by checksum.
        total_s: of the last: from sending to the worker's answer.
        pause_s: of the last: generation stood still.
        mean_total_s, mean_pause_s: of all.
        phases: by their names.
    """

    count: int = 0
    moved: int = 0
    total_s: float | None = None
    pause_s: float | None = None
    mean_total_s: float | None = None
    mean_pause_s: float | None = None
    phases: Mapping[str, PhaseTimes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A generation worker as the publisher sees it.

    Attributes:
        state: of its delivery.
        version: that it serves; -1 while it starts.
        checksum: of its parameters after the last push; empty before it.
    """

    name: str
    state: State
    version: int
    checksum: str


@dataclass(frozen=True, slots=True)
class TransportState:
    """How a player's versions travel.

    Attributes:
        asked: by the recipe.
        in_use: now; `host` where the one that is asked for failed twice.
        failures: of the one that is asked for: versions that had to go another way.
        off_since: the version after which it was switched off; None: it is on.
    """

    asked: str = "host"
    in_use: str = "host"
    failures: int = 0
    off_since: int | None = None


@dataclass(frozen=True, slots=True)
class PlayerPushes:
    """One player's versions.

    Attributes:
        newest: version published; 0 before the first.
        first: the first one that this process of the publisher was given; 0 before it.
        versions_pushed: published, less the superseded.
        superseded: versions that no worker was ever sent.
        step: learner steps done, as last reported or pushed.
        metrics: of the newest step; empty before the first.
        pushes: seconds.
        evictions: of its workers, by reason.
        workers: all of them.
        warm: its warm start.
        transport: how versions travel.
    """

    newest: int = 0
    first: int = 0
    versions_pushed: int = 0
    superseded: int = 0
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    pushes: PushTimes = PushTimes()
    evictions: Mapping[str, int] = field(default_factory=dict)
    workers: tuple[WorkerState, ...] = ()
    warm: WarmStart = WarmStart()
    transport: TransportState = TransportState()


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """The publisher at one moment. `answered` is False for what stands in for one that has not answered yet.

    `holder` names its process: a restarted one counts anew.
    """

    answered: bool = False
    players: Mapping[Player, PlayerPushes] = field(default_factory=lambda: {p: PlayerPushes() for p in PLAYERS})
    holder: str = ""


def carry_over(before: PublisherStats, now: PublisherStats) -> PublisherStats:
    """What a restarted publisher says, with what the ones before it had counted: no count falls.

    Args:
        before: the last stats of the one that died, itself carried over.
        now: of the one that took its place.
    """
    return replace(now, players={p: _add(before.players[p], mine) for p, mine in now.players.items()})


def _add(before: PlayerPushes, now: PlayerPushes) -> PlayerPushes:
    return replace(
        now,
        newest=max(before.newest, now.newest),
        versions_pushed=before.versions_pushed + max(0, now.versions_pushed - (before.newest == now.first)),
        superseded=before.superseded + now.superseded,
        step=max(before.step, now.step),
        metrics=now.metrics or before.metrics,
        pushes=_add_times(before.pushes, now.pushes),
        evictions=dict(Counter(before.evictions) + Counter(now.evictions)),
        warm=max(before.warm, now.warm, key=lambda warm: warm.done),
        transport=replace(now.transport, failures=before.transport.failures + now.transport.failures),
    )


def _add_times(before: PushTimes, now: PushTimes) -> PushTimes:
    if not (before.count and now.count):
        return now if now.count else before

    def mean(one: float | None, other: float | None) -> float:
        return ((one or 0.0) * before.count + (other or 0.0) * now.count) / (before.count + now.count)

    phases = {
        name: PhaseTimes(phase.last_s, mean(before.phases.get(name, phase).mean_s, phase.mean_s))
        for name, phase in now.phases.items()
    }
    return replace(
        now,
        count=before.count + now.count,
        moved=before.moved + now.moved,
        mean_total_s=mean(before.mean_total_s, now.mean_total_s),
        mean_pause_s=mean(before.mean_pause_s, now.mean_pause_s),
        phases=phases,
    )
