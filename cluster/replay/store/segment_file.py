"""A segment file and how it is read: an Arrow IPC *stream* of whole batches, then nothing, an end marker, or a torn tail.

A batch's first 8 bytes, its head, are written last. Until then they are `PENDING`: a stream reader takes it for the end of the
stream, and it holds the number of rows to come, so that the rows of a torn tail can be counted.

It writes nothing (`segments` does) and does not know what rows mean.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from protocol.roles import Player
from protocol.rows import SCHEMA, check_schema

HEAD = 8  # bytes: continuation marker and metadata length of an encapsulated Arrow message
_CONTINUES = b"\xff\xff\xff\xff"
END = _CONTINUES + b"\0\0\0\0"
PENDING = struct.Struct(
    "<4xi"
)  # the head of a batch that is being written: the end of the stream, and the rows to come


@dataclass(frozen=True, slots=True)
class Place:
    """Where one row lies: segment number, the batch's bytes in that file, and the row's index in the batch."""

    segment: int
    offset: int
    nbytes: int
    index: int


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch found on disk, with the place of each of its rows."""

    batch: pa.RecordBatch
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class TornTail:
    """What recovery cut off. `lost_rows` is exact if the writer was killed; after a power cut (`at_least`) they may be more."""

    file: str
    lost_bytes: int
    lost_rows: int
    at_least: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """A whole segment, read. `end` is where its batches end; `closed` whether the end marker follows, and nothing else."""

    batches: tuple[StoredBatch, ...]
    end: int
    closed: bool
    torn: TornTail | None

    @property
    def rows(self) -> int:
        """Rows of all its batches."""
        return sum(len(found.places) for found in self.batches)


def segment_path(folder: Path, player: Player, number: int) -> Path:
    """The file of a player's segment `number`."""
    return folder / f"{player}-{number:06d}.arrow"


def segment_number(path: Path) -> int:
    """The number in a segment's file name."""
    return int(path.stem.rsplit("-", 1)[1])


def segment_files(folder: Path, player: Player) -> list[Path]:
    """A player's segments, oldest first."""
    return sorted(folder.glob(f"{player}-*.arrow"), key=segment_number)


def make_places(segment: int, offset: int, nbytes: int, rows: int) -> tuple[Place, ...]:
    """The places of a batch's rows."""
    return tuple(Place(segment, offset, nbytes, index) for index in range(rows))


def read_segment(path: Path, player: Player) -> Iterator[StoredBatch]:
    """The whole batches of a segment, in order, without a lock and without touching it: of a live one, those written so far.

    The batches lie in the memory map. A batch whose writer was killed in the middle of an append is left out.

    Raises:
        UserError: a segment of another schema version.
    """
    source = pa.memory_map(str(path))
    yield from _whole_batches(source, segment_number(path), _skip_schema(source, path), player)


def scan_segment(path: Path, player: Player) -> Scan:
    """A segment with what a crash left behind its last whole batch. Raises as `read_segment`."""
    with pa.memory_map(str(path)) as source:
        end, size = _skip_schema(source, path), source.size()
        batches = tuple(_whole_batches(source, segment_number(path), end, player))
        end += sum(found.places[0].nbytes for found in batches)
        closed = size == end + HEAD and _read(source, end, HEAD) == END
        torn = _torn_tail(source, path, end) if size > end and not closed else None
    return Scan(batches, end, closed, torn)


def read_batch(source: pa.MemoryMappedFile, place: Place) -> pa.RecordBatch:
    """The batch of a place, out of its segment's memory map."""
    return pa.ipc.read_record_batch(pa.ipc.read_message(_buffer(source, place.offset, place.nbytes)), SCHEMA)


def _skip_schema(source: pa.MemoryMappedFile, path: Path) -> int:
    """Where the batches of a segment begin."""
    check_schema(pa.ipc.open_stream(source).schema, str(path))
    return int(source.tell())


def _whole_batches(source: pa.MemoryMappedFile, number: int, offset: int, player: Player) -> Iterator[StoredBatch]:
    while source.size() - offset > HEAD:
        head = _read(source, offset, HEAD)
        if head[:4] != _CONTINUES or head == END:
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
        yield StoredBatch(batch, make_places(number, offset, nbytes, batch.num_rows))
        offset += nbytes


def _torn_tail(source: pa.MemoryMappedFile, path: Path, end: int) -> TornTail:
    size = source.size() - end
    head = _read(source, end, HEAD) if size >= HEAD else b""
    rows = PENDING.unpack(head)[0] if head[:4] == bytes(4) else 0
    return TornTail(path.name, size, max(1, rows), at_least=rows < 1)


def _buffer(source: pa.MemoryMappedFile, offset: int, nbytes: int) -> pa.Buffer:
    source.seek(offset)
    return source.read_buffer(nbytes)


def _read(source: pa.MemoryMappedFile, offset: int, nbytes: int) -> bytes:
    return bytes(_buffer(source, offset, nbytes).to_pybytes())
