"""One player's replay table: the life of every row, in memory, without the rows themselves.

    arrives ──► free ──► leased(step) ──► learned               (acknowledged: a checkpoint contains the step)
       │          │ ▲         │
       │          │ └─ rewind ┘                                 (the learner restarted from an older checkpoint)
       ▼          ▼
    evicted(tie, no_pair, no_reward | frozen, turn, judge_failed, finished | stale, capacity)

Rows come and go in units: a finished game, with the rows it gave this player (perhaps none). A table = sampler and remover
(`selectors`), capacity in rows, and the staleness bound. Pure: no disk, no clock, no Ray.
Invariants:

- **every row counted**: learned + evicted + held (free and leased) == appended, always.
- **nothing twice**: a game is appended once and its rows are learned at most once; repeats are counted as duplicates.
- **never stale**: nothing leased is more than `max_staleness` versions older than the version it was leased at. A game ages as a
  whole, by the oldest row that it gave, be that one to learn from or not; one that gave no row at all knows no version and does
  not age.
- **nothing to teach is no reason**: a game whose rows are all ties waits for a step like any other. Refused are the games that a
  player has no use for whatever they hold, and those that teach nothing because the judge failed.
- **same batch for every rank**: a step that has a lease gets that lease again.

Decisions (`lease`, `trim`, `finish`) report what they did, so that the caller can write it down; `drop`, `evict`, `restore_lease`,
`acknowledge`, `rewind` and `finish` repeat what was written down. A place (where the row lies on disk) is opaque here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from cluster.replay.rules.selectors import Selection
from protocol.roles import Category

P = TypeVar("P")
_dealt = attrgetter("game_id")


@dataclass(frozen=True, slots=True)
class Row(Generic[P]):
    """A row as the table sees it. `unlearnable` is why it cannot be learned from, or None."""

    row_id: str
    version: int
    place: P
    unlearnable: str | None = None


@dataclass(slots=True)
class Unit(Generic[P]):
    """A finished game and those of its rows that are of use.

    `version` is the oldest of all the rows that it gave, None if it gave none. `category` is its seed's; None where older runs
    did not write it down.
    """

    game_id: int
    version: int | None
    rows: list[Row[P]]
    category: Category | None = None


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
class LeaseOutcome(Generic[P]):
    """`lease` is None while too few games are there. `stale` are the games dropped on the way, `new` a first lease."""

    lease: Lease[P] | None
    stale: tuple[int, ...] = ()
    new: bool = False


class Table(Generic[P]):
    """See the module's docstring.

    Args:
        max_staleness: versions, at most, between a row's oldest token and the step that learns it.
        capacity: free rows held, at most; leased rows are not counted, they cannot be given up.
        selection: which games a step gets, and which go first beyond the capacity.
    """

    def __init__(self, max_staleness: int, capacity: int, selection: Selection = Selection()) -> None:  # noqa: B008  # frozen
        self.max_staleness, self.capacity = max_staleness, capacity
        self._selection = selection
        self.appended = self.learned = self.duplicates = 0
        self.lost = 0  # rows that crashes cut off before anybody was told of them; never appended
        self.lost_at_least = False  # they may have been more
        self.evicted: Counter[str] = Counter()
        self.version = 0  # highest seen, over rows and leases
        self.finished = False  # the learner took its last step
        self._free: dict[int, Unit[P]] = {}
        self._game_of: dict[str, int] = {}  # of every free row
        self._leases: dict[int, Lease[P]] = {}
        self._known: set[int] = set()  # every game ever appended
        self._acknowledged = 0  # every step below is learned for good
        self._asked = -1  # highest step asked for: the ones before it are executed
        self._learned_staleness_sum = self._learned_staleness_max = 0

    @property
    def free_games(self) -> int:
        """Games that wait for a step."""
        return len(self._free)

    @property
    def free(self) -> int:
        """Rows that wait for a step."""
        return len(self._game_of)

    @property
    def leased(self) -> int:
        """Rows of steps that no checkpoint contains yet."""
        return sum(len(lease.rows) for lease in self._leases.values())

    @property
    def held(self) -> int:
        """Rows that are neither learned nor evicted."""
        return self.free + self.leased

    @property
    def unlearned(self) -> int:
        """Games that admission counts: waiting ones and those of the step being executed now."""
        executing = self._leases.get(self._asked)
        return self.free_games + (len(executing.units) if executing else 0)

    @property
    def executed(self) -> int:
        """Steps that are executed for certain: those before the one asked for, and those that a checkpoint contains."""
        return max(self._asked, self._acknowledged, 0)

    @property
    def next_step(self) -> int:
        """The step after the last one that got its games."""
        return max([self._acknowledged, *(step + 1 for step in self._leases)])

    @property
    def max_learned(self) -> int:
        """Highest staleness of a row that a step got (learned, or leased and not rewound); 0 without any."""
        outstanding = [s for lease in self._leases.values() for s in lease.staleness]
        return max([self._learned_staleness_max, *outstanding])

    @property
    def staleness_sum(self) -> int:
        """Sum of the staleness of the rows that steps got; divide by `learned + leased`."""
        return self._learned_staleness_sum + sum(s for lease in self._leases.values() for s in lease.staleness)

    def append(
        self,
        game_id: int,
        rows: Sequence[Row[P]],
        refused: str | None = None,
        spoilt: bool = False,
        category: Category | None = None,
    ) -> bool:
        """Appends a finished game. Rows that have nothing to teach are evicted at once.

        Args:
            refused: why the player has no use for the game, whatever its rows hold: they are evicted for that reason. A
                player that is finished has none for any.
            spoilt: the judge failed on some of the game. If none of the rows teaches, that is why, and the game is refused as
                `judge_failed`: an outage must not pass for steps.
            category: of the game's seed, if known.

        Returns:
            False if the game is known: then nothing is appended, and its rows are counted as duplicates.
        """
        if game_id in self._known:
            self.duplicates += len(rows)
            return False
        self._known.add(game_id)
        self.appended += len(rows)
        versions = [row.version for row in rows]
        self.version = max(self.version, *versions) if versions else self.version
        refused = "finished" if self.finished else refused
        if refused is None and spoilt and all(row.unlearnable for row in rows):
            refused = "judge_failed"
        useful = []
        for row in rows:
            reason = refused or row.unlearnable
            if reason is None:
                useful.append(row)
            else:
                self._evict(row, reason)
        if refused is None:
            oldest = min(versions, default=None)
            self._free[game_id] = Unit(game_id, oldest, useful, category)
            for row in useful:
                self._game_of[row.row_id] = game_id
        return True

    def trim(self) -> list[int]:
        """Drops waiting games that have rows, as the remover says, until the capacity holds, and gives their ids."""
        over: list[int] = []
        rows = self.free
        if rows > self.capacity:
            for unit in self._selection.removal([u for u in self._queue() if u.rows], len(self._known)):
                if rows <= self.capacity:
                    break
                over.append(unit.game_id)
                rows -= len(unit.rows)
        self.drop(over, "capacity")
        return over

    def drop(self, game_ids: Sequence[int], reason: str) -> int:
        """Evicts waiting games, with all their rows. Returns how many of the ids do not wait here (and were left alone)."""
        missing = 0
        for game_id in game_ids:
            unit = self._free.pop(game_id, None)
            if unit is None:
                missing += 1
                continue
            for row in unit.rows:
                del self._game_of[row.row_id]
                self._evict(row, reason)
        return missing

    def evict(self, row_ids: Sequence[str], reason: str) -> int:
        """Evicts single rows, as journals of earlier versions say. Returns how many of the ids are no free row (left alone)."""
        missing = 0
        for row_id in row_ids:
            game_id = self._game_of.pop(row_id, None)
            if game_id is None:
                missing += 1
                continue
            unit = self._free[game_id]
            (gone,) = (row for row in unit.rows if row.row_id == row_id)
            unit.rows = [row for row in unit.rows if row is not gone]
            if not unit.rows:
                del self._free[game_id]
            self._evict(gone, reason)
        return missing

    def ask(self, step: int, version: int) -> bool:
        """Notes that the learner asks for `step` under `version`. Whether that says something new."""
        new = step > self._asked or version > self.version
        self._asked, self.version = max(self._asked, step), max(self.version, version)
        return new

    def lease(self, step: int, version: int, games: int, may_take: bool = True) -> LeaseOutcome[P]:
        """`games` waiting games for `step`, as the sampler says, all or none; the same ones again if the step has them already.

        Without `may_take` the step gets nothing new, and no game is looked at: it is not the player's turn.

        Raises:
            ValueError: the step is acknowledged (learned for good), or has a lease of another size.
        """
        self.ask(step, version)
        known = self._leases.get(step)
        if known is not None:
            if len(known.units) > games:
                raise ValueError(f"step {step} has a lease of {len(known.units)} games; {games} were asked for")
            return LeaseOutcome(known)
        if step < self._acknowledged:
            raise ValueError(f"step {step} is learned for good: every step below {self._acknowledged} is; rewind first")
        if not may_take:
            return LeaseOutcome(None)
        stale = [
            unit.game_id
            for unit in self._free.values()
            if unit.version is not None and version - unit.version > self.max_staleness
        ]
        self.drop(stale, "stale")
        if self.free_games < games:
            return LeaseOutcome(None, tuple(stale))
        units = self._queue()
        slack = [None if u.version is None else self.max_staleness - (version - u.version) for u in units]
        chosen = self._selection.sample(units, games, step, slack)
        self._take(step, version, [unit.game_id for unit in chosen])
        return LeaseOutcome(self._leases[step], tuple(stale), new=True)

    def restore_lease(self, step: int, version: int, game_ids: Sequence[int]) -> int:
        """Repeats a lease that was written down. Returns how many of its games do not wait here (and were left out)."""
        self.ask(step, version)
        waiting = [game_id for game_id in game_ids if game_id in self._free]
        self._take(step, version, waiting)
        return len(game_ids) - len(waiting)

    def acknowledge(self, step: int) -> None:
        """A checkpoint contains every step below `step`: their rows are learned for good."""
        self._acknowledged = max(self._acknowledged, step)
        for done in [s for s in self._leases if s < step]:
            lease = self._leases.pop(done)
            self.learned += len(lease.rows)
            self._learned_staleness_sum += sum(lease.staleness)
            self._learned_staleness_max = max([self._learned_staleness_max, *lease.staleness])

    def rewind(self, step: int) -> int:
        """Returns the games of step `step` and later to the queue; the learner is not finished.

        Returns:
            How many games came back.
        """
        back = [unit for s in list(self._leases) if s >= step for unit in self._leases.pop(s).units]
        self._free.update({unit.game_id: unit for unit in back})
        self._game_of.update({row.row_id: unit.game_id for unit in back for row in unit.rows})
        self._acknowledged = min(self._acknowledged, step)
        self._asked = step
        self.finished = False
        return len(back)

    def finish(self) -> None:
        """The learner took its last step: rows that wait, and those that still come, are evicted as `finished`."""
        self.finished = True
        self.drop(list(self._free), "finished")

    def note_lost(self, rows: int, at_least: bool) -> None:
        """A crash lost rows of which nobody had been told."""
        self.lost += rows
        self.lost_at_least |= at_least

    def _queue(self) -> list[Unit[P]]:
        """The waiting games in the order in which they were dealt, whenever they finished.

        A slow game does not start to wait all over again when it comes: by then it is the one that can wait the least.
        """
        return sorted(self._free.values(), key=_dealt)

    def _evict(self, row: Row[P], reason: str) -> None:
        self.evicted[reason] += 1

    def _take(self, step: int, version: int, game_ids: Sequence[int]) -> None:
        units = tuple(self._free.pop(game_id) for game_id in game_ids)
        self._leases[step] = Lease(step, version, units)
        for row in self._leases[step].rows:
            del self._game_of[row.row_id]
