"""Which files a checkpoint holds, how long they are and what is in them: written down by the ranks that wrote them.

A disk that lost power, a copy that broke off and a file system that lies all leave files that a reader finds out late, if at all.
With this list damage is found before anything is loaded, by length at once and by digest in the time of one reading.

Durable: whoever wrote a file syncs it, on its own node; a sync on another one says nothing about it.
"""

import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.files import sync_path
from protocol.packed import file_checksum

_OF_RANK = re.compile(r"pp_rank_(\d+)_|^rank-(\d+)\.pt$")  # DeepSpeed's names, and ours


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file's length in bytes and its xxh3-128 digest."""

    size: int
    digest: str


def files_of(folder: Path, rank: int) -> list[Path]:
    """The files in a checkpoint that this rank wrote. What names no rank is rank 0's."""
    return [path for path in _all_files(folder) if _writer(path) == rank]


def sync_and_describe(folder: Path, files: Iterable[Path]) -> dict[str, FileFacts]:
    """Makes these files durable, and gives what the checkpoint's list holds of them, by their paths in it."""
    facts = {}
    for path in files:
        sync_path(path)
        facts[path.relative_to(folder).as_posix()] = FileFacts(path.stat().st_size, file_checksum(path))
    return facts


def find_short(folder: Path, listed: Mapping[str, FileFacts]) -> str | None:
    """What is wrong with a checkpoint by its files' lengths; None if nothing is. Reads none."""
    for name, facts in listed.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is not there"
        if (size := path.stat().st_size) != facts.size:
            return f"{name} has {size} bytes and should have {facts.size}"
    return None


def find_altered(folder: Path, listed: Mapping[str, FileFacts], part: int = 0, parts: int = 1) -> str | None:
    """What is wrong by their contents, in every `parts`-th file from `part` on: ranks share the reading."""
    for name, facts in sorted(listed.items())[part::parts]:
        try:
            found = file_checksum(folder / name)
        except OSError as e:
            return f"{name} cannot be read ({e.strerror})"
        if found != facts.digest:
            return f"{name} is not what was written (its digest is another)"
    return None


def find_torn(folder: Path, ranks: int) -> str | None:
    """The same of a checkpoint of before there was a list: a rank's file that is missing, a torch file without its end."""
    for rank in range(ranks):
        if not (folder / f"rank-{rank}.pt").is_file():
            return f"rank-{rank}.pt is not there"
        if not any(_writer(path) == rank and "optim_states" in path.name for path in _all_files(folder)):
            return f"the optimizer's states of rank {rank} are not there"
    for path in _all_files(folder):
        if path.suffix == ".pt" and not zipfile.is_zipfile(path):  # a zip archive, whose table stands at its end
            return f"{path.relative_to(folder).as_posix()} is not whole, at {path.stat().st_size} bytes"
    return None


def to_json(facts: Mapping[str, FileFacts]) -> dict[str, Any]:
    """As a checkpoint keeps the list."""
    return {name: [one.size, one.digest] for name, one in sorted(facts.items())}


def from_json(value: Mapping[str, Any]) -> dict[str, FileFacts]:
    """The list, read. Raises `ValueError` or `TypeError` where it is none."""
    return {name: FileFacts(int(size), str(digest)) for name, (size, digest) in value.items()}


def _all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _writer(path: Path) -> int:
    found = _OF_RANK.search(path.name)
    return int(found[1] or found[2]) if found else 0
