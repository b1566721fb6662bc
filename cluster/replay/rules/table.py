"""One player's replay table: the life of every row, in memory, without the rows themselves.

    appended ──► waiting ──► leased(step) ──► learned           (acknowledged: a checkpoint contains the step)
       │          │ ▲         │
       │          │ └─ rewind ┘                                 (the learner restarted from an older checkpoint)
       ▼          ▼
    evicted(tie, no_pair, no_reward | frozen, turn, judge_failed, finished | stale, capacity)

Rows come and go in units: a finished game, with the rows it gave this player (perhaps none). A table = sampler and remover
(`selectors`), capacity in rows, staleness bound, and the learner's leases (`leases`). Pure: no disk, no clock, no Ray.
Invariants:

- **every row counted**: learned + evicted + held (waiting and leased) == appended, always.
- **nothing twice**: a game is appended once and its rows are learned at most once; repeats are counted as duplicates.
- **never stale**: nothing leased is more than `max_staleness` versions older than the version it was leased at. A game ages as a
  whole, by the oldest row that it gave, learnable or not. A game without rows has no version and does not age.
- **ties fill a batch**: a game whose rows are all ties waits for a step like any other. Refused are only the games that a player
  has no use for whatever they hold, and those that teach nothing because the judge failed.
- **same batch for every rank**: a step that has a lease gets that lease again.

Decisions (`lease`, `trim`, `finish`) report what they did, so that the caller can write it down; `drop`, `restore_lease`,
`acknowledge`, `rewind` and `finish` repeat what was written down. A place (where the row lies on disk) is opaque here.
"""

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Generic, TypeVar

from cluster.replay.rules.leases import LeaseOutcome, Leases, Row, Unit
from cluster.replay.rules.selectors import Selection
from protocol.roles import Category

P = TypeVar("P")
_deal_order = attrgetter("game_id")  # ids are dealt in ascending order


class Table(Generic[P]):
    """See the module's docstring.

    Args:
        max_staleness: versions, at most, between a row's oldest token and the step that learns it.
        capacity: waiting rows, at most; leased rows are not counted, they cannot be given up.
        selection: which games a step gets, and which go first beyond the capacity.
    """

    def __init__(self, max_staleness: int, capacity: int, selection: Selection = Selection()) -> None:  # noqa: B008  # frozen
        self.max_staleness, self.capacity = max_staleness, capacity
        self._selection = selection
        self.appended = self.duplicates = 0
        self.lost = 0  # rows that crashes cut off before they were confirmed; never appended
        self.lost_at_least = False  # they may have been more
        self.evicted: Counter[str] = Counter()
        self.version = 0  # highest seen, over rows and leases
        self.finished = False  # the learner took its last step
        self.free = 0  # rows that wait for a step
        self._waiting: dict[int, Unit[P]] = {}
        self._known: set[int] = set()  # every game ever appended
        self._leases: Leases[P] = Leases()

    @property
    def free_games(self) -> int:
        """Games that wait for a step."""
        return len(self._waiting)

    @property
    def leased(self) -> int:
        """Rows of steps that no checkpoint contains yet."""
        return self._leases.rows

    @property
    def learned(self) -> int:
        """Rows of steps that a checkpoint contains."""
        return self._leases.learned

    @property
    def held(self) -> int:
        """Rows that are neither learned nor evicted."""
        return self.free + self.leased

    @property
    def unlearned(self) -> int:
        """Games that admission counts: waiting ones and those of the step being executed now."""
        return self.free_games + self._leases.executing_games

    @property
    def executed(self) -> int:
        """Steps that are executed for certain."""
        return self._leases.executed

    @property
    def next_step(self) -> int:
        """The step after the last one that got its games."""
        return self._leases.next_step

    @property
    def max_learned(self) -> int:
        """Highest staleness of a row that a step got, in versions."""
        return self._leases.max_staleness

    @property
    def staleness_sum(self) -> int:
        """Sum of the staleness of the rows that steps got; divide by `learned + leased`."""
        return self._leases.staleness_sum

    def append(
        self,
        game_id: int,
        rows: Sequence[Row[P]],
        category: Category,
        refused: str | None = None,
        judge_failed: bool = False,
    ) -> bool:
        """Appends a finished game. Rows that have nothing to teach are evicted at once.

        Args:
            category: of the game's seed.
            refused: why the player has no use for the game, whatever its rows hold: they are evicted for that reason. A
                player that is finished has no use for any game.
            judge_failed: the judge failed on some of the game. If none of the rows teaches, the game is refused as
                `judge_failed`: an outage must not pass for steps.

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
        if refused is None and judge_failed and all(row.unlearnable for row in rows):
            refused = "judge_failed"
        useful = []
        for row in rows:
            reason = refused or row.unlearnable
            if reason is None:
                useful.append(row)
            else:
                self._evict(row, reason)
        if refused is None:
            self._waiting[game_id] = Unit(game_id, min(versions, default=None), useful, category)
            self.free += len(useful)
        return True

    def trim(self) -> list[int]:
        """Evicts waiting games that have rows, as the remover says, until the capacity holds, and gives their ids."""
        over: list[int] = []
        rows = self.free
        if rows > self.capacity:
            for unit in self._selection.rank_for_removal([u for u in self._queue() if u.rows], len(self._known)):
                if rows <= self.capacity:
                    break
                over.append(unit.game_id)
                rows -= len(unit.rows)
        self.drop(over, "capacity")
        return over

    def drop(self, game_ids: Sequence[int], reason: str) -> int:
        """Evicts waiting games, with all their rows. Returns how many of the ids do not wait here (and were left alone)."""
        units = self._take(game_ids)
        for row in (row for unit in units for row in unit.rows):
            self._evict(row, reason)
        return len(game_ids) - len(units)

    def ask(self, step: int, version: int) -> bool:
        """Notes that the learner asks for `step` under `version`. Whether that says something new."""
        new = self._leases.ask(step) or version > self.version
        self.version = max(self.version, version)
        return new

    def lease(self, step: int, version: int, games: int, may_take: bool = True) -> LeaseOutcome[P]:
        """`games` waiting games for `step`, as the sampler says, all or none; the same ones again if the step has them already.

        Without `may_take` the step gets nothing new, and nothing is evicted: it is not the player's turn.

        Raises:
            ValueError: the step is acknowledged (learned for good), or has a lease of another size.
        """
        self.ask(step, version)
        known = self._leases.find(step, games)
        if known is not None or not may_take:
            return LeaseOutcome(known)
        stale = [
            unit.game_id
            for unit in self._waiting.values()
            if unit.version is not None and version - unit.version > self.max_staleness
        ]
        self.drop(stale, "stale")
        if self.free_games < games:
            return LeaseOutcome(None, tuple(stale))
        units = self._queue()
        slack = [None if u.version is None else self.max_staleness - (version - u.version) for u in units]
        chosen = self._selection.sample(units, games, step, slack)
        lease = self._leases.add(step, version, self._take([unit.game_id for unit in chosen]))
        return LeaseOutcome(lease, tuple(stale), new=True)

    def restore_lease(self, step: int, version: int, game_ids: Sequence[int]) -> int:
        """Repeats a lease that was written down. Returns how many of its games do not wait here (and were left out)."""
        self.ask(step, version)
        units = self._take(game_ids)
        self._leases.add(step, version, units)
        return len(game_ids) - len(units)

    def acknowledge(self, step: int) -> None:
        """A checkpoint contains every step below `step`: their rows are learned for good."""
        self._leases.acknowledge(step)

    def rewind(self, step: int) -> int:
        """The games of step `step` and later wait again; the learner is not finished.

        Returns:
            How many games came back.
        """
        back = self._leases.rewind(step)
        self._waiting.update({unit.game_id: unit for unit in back})
        self.free += sum(len(unit.rows) for unit in back)
        self.finished = False
        return len(back)

    def finish(self) -> None:
        """The learner took its last step: rows that wait, and those that still come, are evicted as `finished`."""
        self.finished = True
        self.drop(list(self._waiting), "finished")

    def note_lost(self, rows: int, at_least: bool) -> None:
        """A crash lost rows that had not been confirmed."""
        self.lost += rows
        self.lost_at_least |= at_least

    def _queue(self) -> list[Unit[P]]:
        """The waiting games in the order in which they were dealt, whenever they finished.

        A slow game does not go to the end of the queue when it finishes: by then it is the one that can wait the least.
        """
        return sorted(self._waiting.values(), key=_deal_order)

    def _evict(self, row: Row[P], reason: str) -> None:
        self.evicted[reason] += 1

    def _take(self, game_ids: Sequence[int]) -> list[Unit[P]]:
        """Takes games out of the queue, those of the ids that wait there."""
        units = [unit for game_id in game_ids if (unit := self._waiting.pop(game_id, None)) is not None]
        self.free -= sum(len(unit.rows) for unit in units)
        return units
