"""The journal of an evaluation: every answer and verdict, as it came, in a file of JSON lines that is only appended to.

Invariants:
- a line is written whole, in one write, or cut off when the file is opened again: what is read back was written;
- one process at a time has the file (it holds a lock);
- the first line says what is evaluated and how; a journal of another evaluation is refused, never mixed in;
- what it holds survives the process at once, and a power cut after `FSYNC_S`.

It does not know what answers and verdicts are: a record is a kind, a key and a value.
"""

import json
import os
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Self

from protocol.errors import UserError
from protocol.locks import try_lock

FSYNC_S = 1.0  # a batch: each answer costs more than its record, but not more than an fsync on a network disk
VERSION = 1

Key = tuple[str | int, ...]


class Journal:
    """A context manager; see the module's docstring.

    Args:
        path: the file, made if it is missing; its folder exists.
        about: what is evaluated and how. JSON values, at one level.

    Raises:
        UserError: another process has the file, it is no journal, or it is another evaluation's.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        self._records: dict[tuple[str, Key], Any] = {}
        self._file = _open_locked(path)
        try:
            self._read({"journal": VERSION, **about})
        except BaseException:
            self._file.close()
            raise
        self._synced_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def get(self, kind: str, *key: str | int) -> Any:
        """A record's value; None if there is none."""
        return self._records.get((kind, key))

    def put(self, value: Any, kind: str, *key: str | int) -> None:
        """Adds a record. `value` is JSON and not None.

        Raises:
            UserError: the disk does not take it.
        """
        self._write({"kind": kind, "key": key, "value": value})
        self._records[kind, key] = value
        if time.monotonic() - self._synced_at >= FSYNC_S:
            os.fsync(self._file.fileno())
            self._synced_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._records)

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            whole = self._file.write(line) == len(line)  # a disk that fills up takes a part and raises nothing
        except OSError:
            whole = False
        if not whole:
            os.ftruncate(self._file.fileno(), size)
            raise UserError(f"--out: {self._path} takes no more; make room on its disk, and run the same command again")

    def _read(self, about: dict[str, Any]) -> None:
        kept = self._path.read_bytes()
        if not kept.endswith(b"\n"):
            kept = kept[: kept.rfind(b"\n") + 1]  # a record that was cut off
            os.truncate(self._path, len(kept))
        lines = kept.splitlines()
        if not lines:
            self._write(about)
            return
        try:
            self._check(json.loads(lines[0]), about)
            for line in lines[1:]:
                record = json.loads(line)
                self._records[record["kind"], tuple(record["key"])] = record["value"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"--out: {self._path} is no journal of `evaluate`; name another folder, or put the file back as it was"
            ) from None

    def _check(self, kept: dict[str, Any], about: dict[str, Any]) -> None:
        if "journal" not in kept:
            raise ValueError("no journal")
        other = [name for name in {**kept, **about} if kept.get(name) != json.loads(json.dumps(about.get(name)))]
        if other:
            raise UserError(
                f"--out: {self._path.parent} holds another evaluation ({', '.join(other)} differ); name another folder, or give "
                "what that one was given"
            )


def _open_locked(path: Path) -> FileIO:
    try:
        file = FileIO(path, "a")  # unbuffered: a line is one write
    except OSError as e:
        raise UserError(f"--out: {path} cannot be written ({e.strerror}); name a folder that can") from None
    if not try_lock(file.fileno(), path):
        file.close()
        raise UserError(f"--out: {path.parent} is in use by another `evaluate`; wait for its end")
    return file
