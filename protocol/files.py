"""Files and folders that are whole or not there: a temporary name, fsync of what was written, a rename, fsync of the parent.

A reader sees the old one or the new one, never a part; after a power cut, too. Whoever is cut off leaves at most a draft
(`.NAME.RANDOM.tmp`, beside the target) that nobody reads. Pure standard library; raises `OSError` as the system does.

Not for files that grow while they are read (segments, journals, ledgers): their owners keep them whole in their own way.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def draft_name(path: Path) -> Path:
    """Where `path` is written before it has its name: in the same folder, so that the rename is atomic, and nobody else's."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written in the block; it replaces `path` when the block ends well, and is removed when it raises."""
    draft = draft_name(path)
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
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
        replace: an earlier folder of that name gives way, once all of the new one is on disk; drafts that were cut off are removed.
            Only for a folder that one process writes at a time.

    Raises:
        FileExistsError: `path` is there (without `replace`), before the block or after it.
        OSError: it cannot be written.
    """
    if path.exists() and not replace:
        raise FileExistsError(f"{path} is there already")
    if replace:
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            shutil.rmtree(left)
    draft = draft_name(path)
    draft.mkdir(parents=True)
    try:
        yield draft
        sync_folder(draft)
        if path.exists():
            if not replace:
                raise FileExistsError(f"{path} is there already")
            shutil.rmtree(path)
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_path(path.parent)


def commit_folder(draft: Path, path: Path) -> None:
    """Gives a finished draft its name, durably: everything in it, the rename, and the parent.

    For folders that several processes fill; one of them calls this when all are done.
    """
    sync_folder(draft)
    draft.rename(path)
    sync_path(path.parent)


def sync_folder(folder: Path) -> None:
    """Fsync of every file and folder in a folder, and of the folder itself. Links are left to what they name."""
    for part in [*folder.rglob("*"), folder]:
        if not part.is_symlink():
            sync_path(part)


def sync_path(path: Path) -> None:
    """Fsync of a file's bytes, or of a folder's names: what makes a rename or a new file in it durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
