"""What the replay buffer tells about itself: counts, staleness, and which side waits for which.

Frozen and picklable; a `ReplayStats()` without arguments stands for a buffer that has not answered yet.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster.replay.rules.admission import Admission
from cluster.replay.rules.alarm import Alarm
from cluster.replay.rules.backpressure import Backpressure, BackpressureStats
from cluster.replay.rules.dealer import Dealer
from cluster.replay.rules.table import Table
from cluster.replay.rules.tally import JudgeCounts, StateCounts, Tally
from cluster.replay.rules.turns import Roster
from cluster.replay.store.segment_file import Place
from protocol.metrics import WaitCause
from protocol.roles import CATEGORIES, PLAYERS, Category, Player


@dataclass(frozen=True, slots=True)
class GameCounts:
    """Games of the run.

    Attributes:
        started: distinct games dealt.
        finished: brought back.
        abandoned: given up, by reason.
        open: that a worker plays now.
        redealt: times that a lost game was dealt again.
        late: records of games that were over already, ignored.
    """

    started: int = 0
    finished: int = 0
    abandoned: Mapping[str, int] = field(default_factory=dict)
    open: int = 0
    redealt: int = 0
    late: int = 0

    @property
    def given_up(self) -> int:
        """Abandoned games, for any reason."""
        return sum(self.abandoned.values())

    @property
    def in_flight(self) -> int:
        """Games that were started and are not over: those that are open, and those that wait to be dealt again."""
        return self.started - self.finished - self.given_up


@dataclass(frozen=True, slots=True)
class RowCounts:
    """One player's rows. learned + evicted + held == appended.

    Attributes:
        appended: stored.
        learned: for good: a checkpoint contains their step.
        leased: to a step that no checkpoint contains yet.
        free: that wait for a step.
        held: leased and free ones.
        duplicates: that came again, ignored.
        lost: never appended: crashes cut them off before anybody was told of them.
        lost_at_least: whether the lost ones may have been more.
        evicted: dropped, by reason.
    """

    appended: int = 0
    learned: int = 0
    leased: int = 0
    free: int = 0
    held: int = 0
    duplicates: int = 0
    lost: int = 0
    lost_at_least: bool = False
    evicted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Staleness:
    """Of rows that a step got, learned or still leased, in policy versions; None: not known."""

    max_learned: int | None = None
    mean_learned: float | None = None


@dataclass(frozen=True, slots=True)
class AlarmState:
    """The judge's alarm.

    Attributes:
        raised: times.
        up_s: seconds for which it is up; 0: it is not.
        paused_s: seconds that it was up in all.
        failure_rate: share of the latest verdicts that failed; None while there are none.
    """

    raised: int = 0
    up_s: float = 0.0
    paused_s: float = 0.0
    failure_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """One side's waiting.

    Attributes:
        waiting: callers that wait now.
        for_s: seconds since somebody has waited without a break; 0 if nobody does.
        total_s: seconds over the run with at least one waiter.
        on: what the side waits for, in words; `cause`: the same as one of few.
    """

    waiting: int = 0
    for_s: float = 0.0
    total_s: float = 0.0
    on: str = ""
    cause: WaitCause = "games"


@dataclass(frozen=True, slots=True)
class ReplayStats:
    """The buffer at one moment.

    Attributes:
        answered: False for what stands in for a buffer that has not answered yet.
        games, rows, states, judge: counts over the run; `states_of`: by the seed's category.
        held_games: games that wait for a step.
        staleness: of both players together; `staleness_of`: of each.
        rewards: mean reward of the latest rows; None before the first; `rewards_of`: by the seed's category.
        versions: highest policy version seen, in rows and leases.
        alarm: the judge's.
        turn: the player on turn; None where nobody takes turns.
        admission: games that may start now, and why not more.
        rollout_waits, learner_waits: of each side for the other.
        backpressure: None where nothing follows the engines.
    """

    answered: bool = False
    games: GameCounts = GameCounts()
    rows: Mapping[Player, RowCounts] = field(default_factory=lambda: {p: RowCounts() for p in PLAYERS})
    states: StateCounts = field(default_factory=StateCounts)
    states_of: Mapping[Category, StateCounts] = field(default_factory=dict)
    judge: JudgeCounts = field(default_factory=JudgeCounts)
    held_games: Mapping[Player, int] = field(default_factory=lambda: dict.fromkeys(PLAYERS, 0))
    staleness: Staleness = Staleness()
    staleness_of: Mapping[Player, Staleness] = field(default_factory=lambda: {p: Staleness() for p in PLAYERS})
    rewards: Mapping[Player, float | None] = field(default_factory=lambda: dict.fromkeys(PLAYERS))
    rewards_of: Mapping[Player, Mapping[Category, float | None]] = field(
        default_factory=lambda: {p: {} for p in PLAYERS}
    )
    versions: Mapping[Player, int] = field(default_factory=lambda: dict.fromkeys(PLAYERS, 0))
    alarm: AlarmState = AlarmState()
    turn: Player | None = None
    admission: Admission = field(default_factory=lambda: Admission(0, ""))
    rollout_waits: Wait = Wait()
    learner_waits: Mapping[Player, Wait] = field(default_factory=lambda: {p: Wait() for p in PLAYERS})
    backpressure: BackpressureStats | None = None


class WaitClock:
    """How long somebody of each side has waited: seconds with at least one waiter, not summed over waiters."""

    def __init__(self) -> None:
        self._waiters: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._total: dict[str, float] = {}

    @contextmanager
    def waiting(self, side: str) -> Iterator[None]:
        """Counts the caller as waiting on `side` while the block runs."""
        if not self._waiters.get(side):
            self._since[side] = time.monotonic()
        self._waiters[side] = self._waiters.get(side, 0) + 1
        try:
            yield
        finally:
            self._waiters[side] -= 1
            if not self._waiters[side]:
                self._total[side] = self._total.get(side, 0.0) + time.monotonic() - self._since[side]

    def read(self, side: str, on: str, cause: WaitCause) -> Wait:
        """The side's waiting so far, for `on`."""
        waiters = self._waiters.get(side, 0)
        for_s = time.monotonic() - self._since[side] if waiters else 0.0
        return Wait(waiters, for_s, self._total.get(side, 0.0) + for_s, on, cause)


def replay_stats(
    dealer: Dealer,
    tables: Mapping[Player, Table[Place]],
    batch_games: Mapping[Player, int],
    tally: Tally,
    admission: Admission,
    waits: WaitClock,
    roster: Roster,
    alarm: Alarm,
    backpressure: Backpressure | None,
    now_s: float,
) -> ReplayStats:
    """What the parts of the buffer add up to at `now_s`."""
    turn = roster.turn(roster.standing(tables))
    learned = sum(t.learned + t.leased for t in tables.values())

    def wait_of(p: Player, table: Table[Place]) -> Wait:
        if turn is not None and turn.player != p:
            return waits.read(p, f"{p} waits for the end of the {turn.player}'s turn", "turn")
        return waits.read(
            p, f"{p} has {table.free_games} of the {batch_games[p]} games of step {table.next_step}", "games"
        )

    return ReplayStats(
        answered=True,
        games=GameCounts(
            dealer.started, dealer.finished, dict(dealer.abandoned), dealer.open_games, dealer.redealt, dealer.late
        ),
        rows={p: _count_rows(t) for p, t in tables.items()},
        states=tally.states,
        states_of=tally.states_of,
        judge=tally.judge,
        held_games={p: t.free_games for p, t in tables.items()},
        staleness=Staleness(
            max(t.max_learned for t in tables.values()), _mean(sum(t.staleness_sum for t in tables.values()), learned)
        ),
        staleness_of={
            p: Staleness(t.max_learned, _mean(t.staleness_sum, t.learned + t.leased)) for p, t in tables.items()
        },
        rewards={p: tally.reward_mean(p) for p in tables},
        rewards_of={p: {c: tally.reward_mean(p, c) for c in CATEGORIES} for p in tables},
        versions={p: t.version for p, t in tables.items()},
        alarm=AlarmState(alarm.raised, alarm.up_s(now_s), alarm.paused_s + alarm.up_s(now_s), alarm.failure_rate),
        turn=None if turn is None else turn.player,
        admission=admission,
        rollout_waits=waits.read("rollout", admission.why, admission.cause),
        learner_waits={p: wait_of(p, t) for p, t in tables.items()},
        backpressure=None if backpressure is None else backpressure.stats(now_s),
    )


def _count_rows(t: Table[Place]) -> RowCounts:
    return RowCounts(
        appended=t.appended,
        learned=t.learned,
        leased=t.leased,
        free=t.free,
        held=t.held,
        duplicates=t.duplicates,
        lost=t.lost,
        lost_at_least=t.lost_at_least,
        evicted=dict(t.evicted),
    )


def _mean(total: int, count: int) -> float:
    return total / count if count else 0.0
