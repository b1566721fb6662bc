"""One player's rows on disk: Arrow IPC *stream* segments `{player}-{n:06d}.arrow`, appended to and read at the same time.

Any Arrow reader may open a live segment (`pyarrow.ipc.open_stream`, DuckDB over it, Polars): it sees the batches written
so far. Invariants:

- **whole batches only**: a batch's first 8 bytes are written last, in one aligned write. Until then the place begins with zeros,
  which a stream reader takes for the end of the stream, so nobody reads half a batch, and a killed writer leaves none. The file
  has its new length before a byte of the batch is there, so no reader maps a part of it.
- **durable after sync**: what was appended before `sync` began is on disk when it returns.
- **torn tails are cut**: `recover` truncates what a crash left behind the last whole batch, and says how many rows that was: the
  zeros are followed by the number.

It does not know what rows mean, which are learned (`table`, `journal`), or when to sync (`commit`).
"""

import os
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from protocol.files import sync_path
from protocol.roles import Player
from protocol.rows import SCHEMA, check_schema

MAX_BYTES = 64 * 2**20  # of a segment: large enough to keep files few, small enough to map and copy at ease
MAX_ROWS = 65_536  # of a segment, for rows so small that the bytes never fill it
_HEAD = 8  # continuation marker and metadata length of an encapsulated Arrow message
_CONTINUES = b"\xff\xff\xff\xff"
_END = _CONTINUES + b"\0\0\0\0"
_PENDING = struct.Struct(
    "<4xi"
)  # the head of a batch that is being written: the end of the stream, and the rows to come
_batch_of = attrgetter("segment", "offset")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one row lies: segment number, the batch's bytes in that file, and the row's index in the batch."""

    segment: int
    offset: int
    nbytes: int
    index: int


@dataclass(frozen=True, slots=True)
class TornTail:
    """What recovery cut off. `lost_rows` is exact if the writer was killed; after a power cut (`at_least`) they may be more."""

    file: str
    lost_bytes: int
    lost_rows: int
    at_least: bool


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch found on disk, with the place of each of its rows."""

    batch: pa.RecordBatch
    places: tuple[Place, ...]


def _write_all(fd: int, data: memoryview | bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _places(segment: int, offset: int, nbytes: int, rows: int) -> tuple[Place, ...]:
    return tuple(Place(segment, offset, nbytes, index) for index in range(rows))


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
        self._dirty = False
        self._maps: dict[int, pa.MemoryMappedFile] = {}

    def path(self, number: int) -> Path:
        """The file of segment `number`."""
        return self._folder / f"{self._player}-{number:06d}.arrow"

    def recover(self) -> tuple[list[StoredBatch], list[TornTail]]:
        """Everything on disk, in the order it was appended; cuts torn tails. Call once, before `append`.

        Raises:
            UserError: a segment of another schema version.
        """
        stored: list[StoredBatch] = []
        torn: list[TornTail] = []
        paths = segment_files(self._folder, self._player)
        for path in paths:
            number = _number(path)
            with pa.memory_map(str(path)) as source:
                end, rows, size = _check(source, path), 0, source.size()
                for found in _whole_batches(source, number, end, self._player):
                    stored.append(found)
                    end += found.places[0].nbytes
                    rows += len(found.places)
                closed = size == end + _HEAD and _read(source, end, _HEAD) == _END
                if size > end and not closed:
                    torn.append(_torn(source, path, end))
            if size > end and not closed:
                with path.open("r+b") as file:
                    file.truncate(end)
                    os.fsync(file.fileno())
            self._number = number
            if path == paths[-1] and not closed:
                self._fd, self._end, self._rows = os.open(path, os.O_RDWR), end, rows
        return stored, torn

    def append(self, batch: pa.RecordBatch) -> tuple[Place, ...]:
        """Writes a batch of at least one row; it is visible to readers at once and durable after the next `sync`."""
        data = memoryview(batch.serialize())
        if self._fd is None or self._end >= self._max_bytes or self._rows >= self._max_rows:
            self._begin_segment()
        assert self._fd is not None
        os.ftruncate(self._fd, self._end + len(data))
        _write_all(self._fd, _PENDING.pack(batch.num_rows), self._end)
        _write_all(self._fd, data[_HEAD:], self._end + _HEAD)
        _write_all(self._fd, data[:_HEAD], self._end)
        places = _places(self._number, self._end, len(data), batch.num_rows)
        self._end += len(data)
        self._rows += batch.num_rows
        self._dirty = True
        return places

    def sync(self) -> None:
        """Everything appended so far is on disk when this returns. May run in another thread than `append`."""
        with self._lock:
            if self._dirty and self._fd is not None:
                self._dirty = False  # first: an append during the fsync sets it again
                try:
                    os.fsync(self._fd)
                except OSError:
                    self._dirty = True
                    raise

    def read(self, places: Sequence[Place]) -> pa.Table:
        """The rows at these places, in that order, as one compact table: one copy out of the memory maps.

        Rows of one batch that stand side by side are taken together; it costs 25 us a batch and next to nothing a row.
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
                _write_all(self._fd, _END, self._end)
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
            self._fd, self._end, self._rows, self._dirty = fd, len(schema), 0, False

    def _batch(self, place: Place) -> pa.RecordBatch:
        source = self._maps.get(place.segment)
        if source is None or source.size() < place.offset + place.nbytes:  # the file has grown since it was mapped
            source = self._maps[place.segment] = pa.memory_map(str(self.path(place.segment)))
        return pa.ipc.read_record_batch(pa.ipc.read_message(_buffer(source, place.offset, place.nbytes)), SCHEMA)


def segment_files(folder: Path, player: Player) -> list[Path]:
    """A player's segments, oldest first."""
    return sorted(folder.glob(f"{player}-*.arrow"), key=_number)


def read_segment(path: Path, player: Player) -> Iterator[StoredBatch]:
    """The whole batches of a segment, in order, without a lock and without touching it: of a live one, those written so far.

    The batches lie in the memory map. Where the process is killed in the middle of an append the rest is not looked at.

    Raises:
        UserError: a segment of another schema version.
    """
    source = pa.memory_map(str(path))
    yield from _whole_batches(source, _number(path), _check(source, path), player)


def _check(source: pa.MemoryMappedFile, path: Path) -> int:
    """Where the batches of a segment begin."""
    check_schema(pa.ipc.open_stream(source).schema, str(path))
    return int(source.tell())


def _whole_batches(source: pa.MemoryMappedFile, number: int, offset: int, player: Player) -> Iterator[StoredBatch]:
    while source.size() - offset > _HEAD:
        head = _read(source, offset, _HEAD)
        if head[:4] != _CONTINUES or head == _END:
            return
        try:
            source.seek(offset)
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(source), SCHEMA)
            # After a power cut the disk may hold the length of a batch and not its bytes.
            batch.validate(full=True)
            whole = set(batch.column("player").to_pylist()) == {player}
        except (pa.ArrowInvalid, OSError, EOFError):
            return
        if not whole:
            return
        nbytes = source.tell() - offset
        yield StoredBatch(batch, _places(number, offset, nbytes, batch.num_rows))
        offset += nbytes


def _torn(source: pa.MemoryMappedFile, path: Path, end: int) -> TornTail:
    size = source.size() - end
    head = _read(source, end, _HEAD) if size >= _HEAD else b""
    rows = _PENDING.unpack(head)[0] if head[:4] == bytes(4) else 0
    return TornTail(path.name, size, max(1, rows), at_least=rows < 1)


def _number(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])


def _buffer(source: pa.MemoryMappedFile, offset: int, nbytes: int) -> pa.Buffer:
    source.seek(offset)
    return source.read_buffer(nbytes)


def _read(source: pa.MemoryMappedFile, offset: int, nbytes: int) -> bytes:
    return bytes(_buffer(source, offset, nbytes).to_pybytes())
