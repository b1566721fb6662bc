"""Which learner step has which games: the part of a player's table that follows its learner. Pure.

    lease(step) ──► executed (the learner asks for a later step) ──► learned (acknowledged: a checkpoint contains the step)
         ▲  │
         │  └──► rewound (the learner restarted from an older checkpoint): the games wait again
         └ the same step asks again: the same lease

It counts what was learned, and how stale. It does not choose games (`selectors`) and does not hold waiting ones (`table`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from protocol.roles import Category

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Row(Generic[P]):
    """A row as the table sees it. `unlearnable` is why it cannot be learned from, or None."""

    row_id: str
    version: int
    place: P
    unlearnable: str | None = None


@dataclass(frozen=True, slots=True)
class Unit(Generic[P]):
    """A finished game with those of its rows that can be learned from.

    `version` is the oldest of all the rows that the game gave, None if it gave none. `category` is its seed's.
    """

    game_id: int
    version: int | None
    rows: Sequence[Row[P]]
    category: Category


@dataclass(frozen=True, slots=True)
class Lease(Generic[P]):
    """The games that one learner step consumes, and the policy version it learns at."""

    step: int
    version: int
    units: tuple[Unit[P], ...]

    @property
    def rows(self) -> list[Row[P]]:
        """What there is to learn from; may be empty."""
        return [row for unit in self.units for row in unit.rows]

    @property
    def staleness(self) -> list[int]:
        """Versions between sampling and learning of each row."""
        return [max(0, self.version - row.version) for row in self.rows]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of a lease's rows: how many, and their staleness summed and at most."""

    rows: int
    staleness: int
    max_staleness: int


def _add_up(lease: Lease[P]) -> _Sums:
    staleness = lease.staleness
    return _Sums(len(staleness), sum(staleness), max(staleness, default=0))


@dataclass(frozen=True, slots=True)
class LeaseOutcome(Generic[P]):
    """`lease` is None while too few games wait. `stale` are the games evicted on the way. `new`: the step had no lease before."""

    lease: Lease[P] | None
    stale: tuple[int, ...] = ()
    new: bool = False


class Leases(Generic[P]):
    """See the module's docstring.

    Each lease is added up once, when it is given: what is asked about the outstanding ones costs by the step, not by the row, and
    `stats()` asks it every second.

    Attributes:
        acknowledged: every step below it is learned for good.
        asked: the highest step asked for: the steps before it are executed.
        learned: rows of acknowledged steps.
    """

    def __init__(self) -> None:
        self.acknowledged, self.asked, self.learned = 0, -1, 0
        self._by_step: dict[int, Lease[P]] = {}
        self._sums: dict[int, _Sums] = {}  # of the same steps
        self._learned_staleness_sum = self._learned_staleness_max = 0

    @property
    def outstanding(self) -> list[Lease[P]]:
        """The leases of steps that no checkpoint contains yet."""
        return list(self._by_step.values())

    @property
    def rows(self) -> int:
        """Rows of the outstanding leases."""
        return sum(sums.rows for sums in self._sums.values())

    @property
    def executing_games(self) -> int:
        """Games of the step being executed now."""
        executing = self._by_step.get(self.asked)
        return len(executing.units) if executing else 0

    @property
    def executed(self) -> int:
        """Steps that are executed for certain: those before the one asked for, and those that a checkpoint contains."""
        return max(self.asked, self.acknowledged, 0)

    @property
    def next_step(self) -> int:
        """The step after the last one that got its games."""
        return max([self.acknowledged, *(step + 1 for step in self._by_step)])

    @property
    def max_staleness(self) -> int:
        """Highest staleness of a row that a step got (learned, or leased and not rewound); 0 without any."""
        return max([self._learned_staleness_max, *(sums.max_staleness for sums in self._sums.values())])

    @property
    def staleness_sum(self) -> int:
        """Sum of the staleness of the rows that steps got; divide by `learned + rows`."""
        return self._learned_staleness_sum + sum(sums.staleness for sums in self._sums.values())

    def ask(self, step: int) -> bool:
        """Notes that the learner asks for `step`. Whether no later one, nor this one, was asked for before."""
        new = step > self.asked
        self.asked = max(self.asked, step)
        return new

    def find(self, step: int, games: int) -> Lease[P] | None:
        """The lease that `step` has already; None if it has none.

        Raises:
            ValueError: the step is acknowledged (learned for good), or has a lease of more than `games` games.
        """
        lease = self._by_step.get(step)
        if lease is not None and len(lease.units) > games:
            raise ValueError(f"step {step} has a lease of {len(lease.units)} games; {games} were asked for")
        if lease is None and step < self.acknowledged:
            raise ValueError(f"step {step} is learned for good: every step below {self.acknowledged} is; rewind first")
        return lease

    def add(self, step: int, version: int, units: Sequence[Unit[P]]) -> Lease[P]:
        """Leases games to a step."""
        lease = self._by_step[step] = Lease(step, version, tuple(units))
        self._sums[step] = _add_up(lease)
        return lease

    def acknowledge(self, step: int) -> None:
        """A checkpoint contains every step below `step`: their rows are learned for good."""
        self.acknowledged = max(self.acknowledged, step)
        for done in [s for s in self._by_step if s < step]:
            del self._by_step[done]
            sums = self._sums.pop(done)
            self.learned += sums.rows
            self._learned_staleness_sum += sums.staleness
            self._learned_staleness_max = max(self._learned_staleness_max, sums.max_staleness)

    def rewind(self, step: int) -> list[Unit[P]]:
        """The learner restarts from the checkpoint of `step`. Gives the games of that step and later."""
        undone = [s for s in self._by_step if s >= step]
        back = [unit for s in undone for unit in self._by_step.pop(s).units]
        for s in undone:
            del self._sums[s]
        self.acknowledged = min(self.acknowledged, step)
        self.asked = step
        return back
