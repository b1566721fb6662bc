"""Exports stored rows to a file: Parquet, JSON Lines or Arrow IPC, by the file's suffix. Written whole or not at all.

Columns are those of `protocol.rows.SCHEMA`, and what became of the row: `status`, `why` (it was evicted), `step` (that learned it
or has it leased) and `staleness` (for that step). Without `text` every column that holds text is left out: texts, token ids, raw
verdicts.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.replay.read.reader import StoredRow
from protocol.errors import UserError
from protocol.files import open_file
from protocol.rows import SCHEMA

SUFFIXES = (".parquet", ".jsonl", ".arrow")
_ROWS = 1024  # written at once: enough for a Parquet row group to be worth its overhead, few enough for memory
_TEXT_COLUMNS = ("prompt_ids", "verdicts")
_TEXT_FIELDS_OF_ITEM = ("token_ids", "text")
_FATE = [("status", pa.string()), ("why", pa.string()), ("step", pa.int32()), ("staleness", pa.int32())]


def check_target(file: Path, force: bool) -> None:
    """Raises `UserError` unless the file has a known suffix, is in a folder that exists, and is new (or `force`)."""
    if file.suffix not in SUFFIXES:
        raise UserError(f"--export: {file} is of no known kind; end its name in one of {', '.join(SUFFIXES)}")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(f"--export: {file} is no file in an existing folder; make the folder first, or name another")
    if file.exists() and not force:
        raise UserError(f"--export: {file} exists; name another file, or replace it with --force")


def export_rows(rows: Iterable[StoredRow], file: Path, text: bool) -> None:
    """Writes the rows.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with open_file(file) as out:
            _WRITERS[file.suffix](out, _merge(_make_batches(rows, text)), schema(text))
    except OSError as e:
        raise UserError(
            f"--export: {file} cannot be written ({e.strerror or e}); free the place, or name another"
        ) from None


def schema(text: bool) -> pa.Schema:
    """An export's columns."""
    fields = [f for f in SCHEMA if text or f.name not in _TEXT_COLUMNS]
    if not text:
        at = [f.name for f in fields].index("items")
        fields[at] = pa.field(
            "items", pa.list_(pa.struct([f for f in SCHEMA.field("items").type.value_type if _has_no_text(f)]))
        )
    return pa.schema([*fields, *_FATE], metadata=SCHEMA.metadata if text else None)


def _has_no_text(field: pa.Field) -> bool:
    return field.name not in _TEXT_FIELDS_OF_ITEM


def _make_batches(rows: Iterable[StoredRow], text: bool) -> Iterator[pa.RecordBatch]:
    """The rows as batches of `schema(text)`, one for each batch on disk."""
    wanted = schema(text)
    for _, group in groupby(rows, key=lambda row: id(row.batch)):
        same = list(group)
        taken = same[0].batch.take(pa.array([row.index for row in same]))
        columns = {name: taken.column(name) for name in taken.schema.names}
        if not text:
            items = columns["items"]
            kept = [f for f in items.type.value_type if _has_no_text(f)]
            inner = pa.StructArray.from_arrays([items.values.field(f.name) for f in kept], fields=kept)
            columns["items"] = pa.ListArray.from_arrays(items.offsets, inner)
        columns |= {name: pa.array([getattr(row.fate, name) for row in same], kind) for name, kind in _FATE}
        yield pa.RecordBatch.from_arrays([columns[name] for name in wanted.names], schema=wanted)


def _merge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in larger batches."""
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        pending.append(batch)
        if sum(b.num_rows for b in pending) >= _ROWS:
            yield pa.concat_batches(pending)
            pending = []
    if pending:
        yield pa.concat_batches(pending)


def _write_parquet(out: BinaryIO, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> None:
    with pq.ParquetWriter(out, columns) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_arrow(out: BinaryIO, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> None:
    with pa.ipc.new_file(out, columns) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_jsonl(out: BinaryIO, batches: Iterable[pa.RecordBatch], columns: pa.Schema) -> None:
    for batch in batches:
        out.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in batch.to_pylist())


_WRITERS: dict[str, Any] = {".parquet": _write_parquet, ".arrow": _write_arrow, ".jsonl": _write_jsonl}
