"""Reads a run's replay folder: every stored row, and what became of it. Read-only, without a lock, on a live run too.

The journal is read before the segments, and rows are written before their `finish` event. So every row that the journal names is
found, and a live run is seen as it was at one moment. Rows that came later, or whose game never ended, are `unfinished`. What
became of a row follows from the same events and the same tables as after a restart (`recovery`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from cluster.inputs.home import expand_home
from cluster.inputs.recipe_file import load_recipe
from cluster.plan.replay import plan_replay
from cluster.replay.rules.alarm import Alarm
from cluster.replay.rules.leases import Row
from cluster.replay.rules.table import Table
from cluster.replay.rules.tally import Tally
from cluster.replay.rules.turns import Roster
from cluster.replay.store.journal import JOURNAL, read_events
from cluster.replay.store.recovery import recover_state
from cluster.replay.store.segment_file import Place, StoredBatch, read_segment, segment_files
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.roles import PLAYERS, Category, Player
from protocol.states import State

Status = Literal["unfinished", "waiting", "leased", "learned", "evicted"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a row: `why` it was evicted, the `step` that has or learned it, and how stale it was for that one."""

    status: Status
    why: str | None = None
    step: int | None = None
    staleness: int | None = None


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row's ids, states and fate, and where it lies with its tokens and texts: `batch.slice(index, 1)`."""

    batch: pa.RecordBatch
    index: int
    row_id: str
    game_id: int
    player: Player
    category: Category
    states: tuple[State, ...]
    fate: Fate


class TracedTable(Table[Place]):
    """A table that keeps each row's fate, not only the counts."""

    def __init__(self, max_staleness: int, capacity: int) -> None:
        super().__init__(max_staleness, capacity)
        self._over: dict[str, Fate] = {}  # of rows that are learned or evicted
        self.place_of: dict[str, Place] = {}  # of every appended row: an earlier play of its game may have left another

    def append(self, game_id: int, rows: Sequence[Row[Place]], *args: Any, **kwargs: Any) -> bool:
        self.place_of |= {row.row_id: row.place for row in rows}
        return super().append(game_id, rows, *args, **kwargs)

    def acknowledge(self, step: int) -> None:
        self._over |= self._leased_fates("learned", before=step)
        super().acknowledge(step)

    def fates(self) -> dict[str, Fate]:
        """The fate of every appended row."""
        waiting = {row.row_id: Fate("waiting") for unit in self._waiting.values() for row in unit.rows}
        return self._over | waiting | self._leased_fates("leased")

    def _leased_fates(self, status: Status, before: float = float("inf")) -> dict[str, Fate]:
        return {
            row.row_id: Fate(status, None, lease.step, stale)
            for lease in self._leases.outstanding
            if lease.step < before
            for row, stale in zip(lease.rows, lease.staleness, strict=True)
        }

    def _evict(self, row: Row[Place], reason: str) -> None:
        super()._evict(row, reason)
        self._over[row.row_id] = Fate("evicted", reason)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a run's replay folder holds."""

    max_staleness: int
    tables: dict[Player, TracedTable]
    batches: dict[Player, list[StoredBatch]]
    segments: dict[Player, int]
    nbytes: dict[Player, int]

    def rows(self) -> Iterator[StoredRow]:
        """Every row once, player by player, in the order in which they were stored."""
        for player in PLAYERS:
            fates, place_of = self.tables[player].fates(), self.tables[player].place_of
            seen: set[str] = set()
            for found in self.batches[player]:
                batch = found.batch
                items = batch.column("items")
                states = pa.ListArray.from_arrays(items.offsets, items.values.field("state")).to_pylist()
                columns = (batch.column(name).to_pylist() for name in ("row_id", "game_id", "category"))
                for index, (row_id, game_id, category, ended) in enumerate(zip(*columns, states, strict=True)):
                    place = found.places[index]
                    if row_id not in seen and place_of.get(row_id, place) == place:
                        seen.add(row_id)
                        fate = fates.get(row_id, Fate("unfinished"))
                        yield StoredRow(batch, index, row_id, game_id, player, category, tuple(ended), fate)


def read_replay(run: Path) -> StoredRun:
    """Reads a run's replay folder.

    Raises:
        UserError: the folder is no run's, or this version cannot read its journal or a segment.
    """
    run = expand_home(run)
    run_dir = RunDir(run)
    if not run_dir.recipe.is_file():
        raise UserError(f"replay: {run} is no run (it has no recipe.yaml); give the path of a directory under runs/")
    plan, folder = plan_replay(load_recipe(run_dir.recipe)), run_dir.replay
    try:
        journal = folder / JOURNAL
        events = read_events(journal) if journal.is_file() else []
        files = {p: segment_files(folder, p) for p in PLAYERS}
        batches = {p: [found for path in files[p] for found in read_segment(path, p)] for p in PLAYERS}
        nbytes = {p: sum(path.stat().st_size for path in files[p]) for p in PLAYERS}
    except OSError as e:
        raise UserError(f"replay: {folder} cannot be read ({e.strerror}); check its permissions") from None
    tables = {p: TracedTable(plan.admission.max_staleness, plan.table.capacity_rows) for p in PLAYERS}
    recover_state(batches, events, tables, Tally(), Alarm(plan.alarm), Roster.from_plan(plan), plan.losses)
    return StoredRun(plan.admission.max_staleness, tables, batches, {p: len(files[p]) for p in PLAYERS}, nbytes)
