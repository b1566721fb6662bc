"""One player's rows on disk: segments `{player}-{n:06d}.arrow`, appended to and read at the same time.

Any Arrow reader may open a live segment (`pyarrow.ipc.open_stream`, DuckDB over it, Polars): it sees the batches written
so far. Invariants:

- **whole batches only**: a batch's first 8 bytes are written last, in one aligned write. Until then a stream reader takes them for
  the end of the stream (`segment_file`), so nobody reads half a batch, and a killed writer leaves none. The file has its new length
  before a byte of the batch is there, so no reader maps a part of it.
- **durable after sync**: what was appended before `sync` began is on disk when it returns.
- **torn tails are cut**: `recover` truncates what a crash left behind the last whole batch, and says how many rows that was.

It does not know what rows mean, which are learned (`table`, `journal`), or when to sync (`commit`).
"""

import os
import threading
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from cluster.replay.store.dirty import DirtyFlag
from cluster.replay.store.segment_file import (
    END,
    HEAD,
    PENDING,
    Place,
    Scan,
    StoredBatch,
    TornTail,
    make_places,
    read_batch,
    scan_segment,
    segment_files,
    segment_number,
    segment_path,
)
from protocol.files import sync_path
from protocol.roles import Player
from protocol.rows import SCHEMA

MAX_BYTES = 64 * 2**20  # of a segment: large enough to keep files few, small enough to map and copy quickly
MAX_ROWS = 65_536  # of a segment, for rows so small that the bytes never fill it
_batch_of = attrgetter("segment", "offset")


class Segments:
    """The segments of one player.

    Args:
        folder: `run_dir/replay`, must exist.
        player: whose rows; also the files' prefix.
        max_bytes, max_rows: a segment that reaches either is closed and the next one begun.
    """

    def __init__(self, folder: Path, player: Player, max_bytes: int = MAX_BYTES, max_rows: int = MAX_ROWS) -> None:
        self._folder, self._player = folder, player
        self._max_bytes, self._max_rows = max_bytes, max_rows
        self._lock = threading.Lock()  # sync runs in a thread; a rotation must not close its descriptor
        self._fd: int | None = None
        self._number = -1
        self._end = self._rows = 0
        self._dirty = DirtyFlag()
        self._maps: dict[int, pa.MemoryMappedFile] = {}

    def path(self, number: int) -> Path:
        """The file of segment `number`."""
        return segment_path(self._folder, self._player, number)

    def recover(self) -> tuple[list[StoredBatch], list[TornTail]]:
        """Everything on disk, in the order it was appended; cuts torn tails. Call once, before `append`.

        Raises:
            UserError: a segment of another schema version.
        """
        stored: list[StoredBatch] = []
        torn: list[TornTail] = []
        last: Scan | None = None
        for path in segment_files(self._folder, self._player):
            found = scan_segment(path, self._player)
            stored += found.batches
            if found.torn is not None:
                torn.append(found.torn)
                with path.open("r+b") as file:
                    file.truncate(found.end)
                    os.fsync(file.fileno())
            last, self._number = found, segment_number(path)
        if last is not None and not last.closed:
            self._fd = os.open(self.path(self._number), os.O_RDWR)
            self._end, self._rows = last.end, last.rows
        return stored, torn

    def append(self, batch: pa.RecordBatch) -> tuple[Place, ...]:
        """Writes a batch of at least one row; it is visible to readers at once and durable after the next `sync`."""
        data = memoryview(batch.serialize())
        if self._fd is None or self._end >= self._max_bytes or self._rows >= self._max_rows:
            self._begin_segment()
        assert self._fd is not None
        os.ftruncate(self._fd, self._end + len(data))
        _write_all(self._fd, PENDING.pack(batch.num_rows), self._end)
        _write_all(self._fd, data[HEAD:], self._end + HEAD)
        _write_all(self._fd, data[:HEAD], self._end)
        places = make_places(self._number, self._end, len(data), batch.num_rows)
        self._end += len(data)
        self._rows += batch.num_rows
        self._dirty.mark()
        return places

    def sync(self) -> None:
        """Everything appended so far is on disk when this returns. May run in another thread than `append`."""
        with self._lock:
            if self._fd is not None:
                self._dirty.sync(self._fd)

    def read(self, places: Sequence[Place]) -> pa.Table:
        """The rows at these places, in that order, as one compact table: one copy out of the memory maps.

        Adjacent rows of one batch are taken together; it costs 25 us a batch and next to nothing a row.
        """
        parts: list[pa.RecordBatch] = []
        for _, group in groupby(places, key=_batch_of):
            same = list(group)
            batch, rows = self._batch(same[0]), [place.index for place in same]
            in_a_row = rows == list(range(rows[0], rows[0] + len(rows)))
            parts.append(batch.slice(rows[0], len(rows)) if in_a_row else batch.take(pa.array(rows)))
        return pa.Table.from_batches(parts, SCHEMA).combine_chunks()

    def close(self) -> None:
        """Syncs and closes. The last segment stays open-ended, so that a restart goes on in it."""
        self.sync()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        for source in self._maps.values():
            source.close()
        self._maps.clear()

    def _begin_segment(self) -> None:
        with self._lock:
            if self._fd is not None:
                _write_all(self._fd, END, self._end)
                os.fsync(self._fd)
                os.close(self._fd)
                self._fd = None
            self._number += 1
            path = self.path(self._number)
            unfinished = path.with_suffix(".tmp")
            schema = memoryview(SCHEMA.serialize())
            fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            _write_all(fd, schema, 0)
            os.fsync(fd)
            unfinished.rename(path)
            sync_path(self._folder)
            self._fd, self._end, self._rows, self._dirty = fd, len(schema), 0, DirtyFlag()

    def _batch(self, place: Place) -> pa.RecordBatch:
        source = self._maps.get(place.segment)
        if source is None or source.size() < place.offset + place.nbytes:  # the file has grown since it was mapped
            source = self._maps[place.segment] = pa.memory_map(str(self.path(place.segment)))
        return read_batch(source, place)


def _write_all(fd: int, data: memoryview | bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
