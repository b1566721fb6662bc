"""Files and folders that are whole or not there: a temporary name, fsync of what was written, a rename, fsync of the parent.

A reader sees the old one or the new one, never a part; after a power cut, too. Whoever is cut off leaves at most a temporary name
(`.NAME.PID.tmp`, beside the target) that nobody reads. Pure standard library; raises `OSError` as the system does.

Not for files that grow while they are read (segments, journals, ledgers): their owners keep them whole in their own way.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def temporary_name(path: Path) -> Path:
    """Where `path` is written before it has its name: the same folder, so that the rename is atomic; this process's own."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written in the block; it replaces `path` when the block ends well, and is removed when it raises."""
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_path(path.parent)


def write_file(path: Path, data: str | bytes) -> None:
    """Writes a file whole; text as UTF-8."""
    with open_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_file` of indented JSON. Raises `ValueError` for NaN and infinities, which are no JSON."""
    write_file(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def make_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """An empty folder to be filled in the block; it becomes `path` when the block ends well, and is removed when it raises.

    Args:
        replace: an earlier folder of that name gives way. It is gone for the moment between its removal and the rename.

    Raises:
        OSError: `path` exists (without `replace`), or cannot be written.
    """
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if replace and path.exists():
            shutil.rmtree(path)
        commit_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def commit_folder(draft: Path, path: Path) -> None:
    """Gives a finished draft its name, durably: every file and folder in it, the rename, and the parent.

    For folders that several processes fill; one of them calls this when all are done.
    """
    for part in [*draft.rglob("*"), draft]:
        sync_path(part)
    draft.rename(path)
    sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Fsync of a file's bytes, or of a folder's names: what makes a rename or a new file in it durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
