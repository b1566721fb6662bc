"""The checkpoint folders of one learner group: `step-N`, or `warm-N` before the first step; whole or not there.

A checkpoint is written as `step-N.tmp`, synced by the ranks that wrote it and renamed by rank 0 once every rank is done, so a
folder without the suffix is complete. `warm-N` holds N steps of the warm start and is older than any `step-N`. `checkpoint.json`
in it says what a reader must know before it opens the rest, and which files there are (`inventory`); those belong to the engine.

Complete is not whole: a disk may lose what was synced, a copy may break off. One that is found damaged is renamed `step-N.damaged`
and the one before it takes its place.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learners.storage import inventory
from learners.storage.inventory import FileFacts
from protocol.errors import UserError
from protocol.files import commit_folder, sync_path
from protocol.recipe import LearnerConfig

_META = "checkpoint.json"
_MODES = ("reference", "sampler")  # they decide whether there is an average in it, and of what
_NAME = re.compile(r"(warm|step)-(\d+)")
_DAMAGED = ".damaged"
KEEP = 2  # the newest, and one more in case its disk turns out bad


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a checkpoint stands: steps of the run, the policy version they ended at, and steps of the warm start before them.

    `ranks` wrote it: its files are one a rank, and those of another number are cut anew (`zero3.reshard`).
    """

    step: int
    version: int
    warm: int = 0
    ranks: int = 1


def draft(root: Path, step: int, warm: int = 0) -> Path:
    """Where a checkpoint is written before it is committed. `warm`: steps of the warm start, where it is of that."""
    return root / f"{_name(step, warm)}.tmp"


def make_root(root: Path) -> None:
    """The folder of the checkpoints, durably."""
    root.mkdir(parents=True, exist_ok=True)
    sync_path(root.parent)


@dataclass(frozen=True, slots=True)
class Found:
    """The checkpoints of a learner group.

    Attributes:
        newest: that is not damaged, as far as can be seen without reading it; None: there is none.
        damaged: newer ones, the newest first, with what is wrong with them.
    """

    newest: Path | None
    damaged: tuple[tuple[Path, str], ...]

    def __str__(self) -> str:
        """What a person is told of the damaged ones, in one line; "" if there are none."""
        if not self.damaged:
            return ""
        told = "; ".join(f"{path.parent.name}/{path.name} is damaged ({why})" for path, why in self.damaged)
        then = "nothing is left to go on from" if self.newest is None else f"{self.newest.name} takes its place"
        return f"{told}: {then}"


def find(root: Path) -> Found:
    """Looks at the checkpoints, the newest first, until one is whole by its files' lengths."""
    damaged: list[tuple[Path, str]] = []
    for folder in reversed(_complete(root)):
        if (why := find_damage(folder)) is None:
            return Found(folder, tuple(damaged))
        damaged.append((folder, why))
    return Found(None, tuple(damaged))


def newest(root: Path) -> Path | None:
    """The newest checkpoint that is whole by its files' lengths, or None."""
    return find(root).newest


def steps_taken(root: Path) -> int:
    """Steps of the run in the newest complete checkpoint, damaged or not, by its name; 0 without one."""
    return max(steps_kept(root), default=0)


def steps_kept(root: Path) -> list[int]:
    """The steps of the run at which there are complete checkpoints, in order."""
    return [int(path.name.removeprefix("step-")) for path in _complete(root) if path.name.startswith("step-")]


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, as far as can be seen without reading it; None if nothing is."""
    try:
        meta = _read(folder)
        listed = meta.get("files")
        if listed is None:  # written before there was a list
            return inventory.find_torn(folder, int(meta["world_size"]))
        return inventory.find_short(folder, inventory.from_json(listed))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        return f"{_META} cannot be read ({type(e).__name__})"


def find_altered(folder: Path, rank: int, ranks: int) -> str | None:
    """What is wrong with the contents of this rank's share of a checkpoint's files; None if nothing is. Reads them."""
    return inventory.find_altered(folder, inventory.from_json(_read(folder).get("files") or {}), rank, ranks)


def set_aside(folder: Path) -> Path:
    """Renames a damaged checkpoint, so that nobody takes it for one and its step can be saved again."""
    target = folder.with_name(f"{folder.name}{_DAMAGED}")
    if target.exists():
        shutil.rmtree(target)
    folder.rename(target)
    sync_path(folder.parent)
    return target


def were_set_aside(root: Path) -> bool:
    """Whether damaged checkpoints lie there."""
    return any(root.glob(f"*{_DAMAGED}"))


def write_meta(
    folder: Path,
    *,
    step: int,
    version: int,
    ranks: int,
    config: LearnerConfig,
    warm: int = 0,
    files: Mapping[str, FileFacts] | None = None,
) -> None:
    """Where the checkpoint stands (`Saved`), what a learner must be like to go on from it, and the other files in it."""
    listed = inventory.to_json(files or {})
    modes = {key: getattr(config, key) for key in _MODES}
    lora = None if config.lora is None else config.lora.model_dump(mode="json")
    meta = {"step": step, "version": version, "warm": warm, "world_size": ranks, "lora": lora} | modes
    (folder / _META).write_text(json.dumps(meta | {"files": listed}))


def read_meta(folder: Path, config: LearnerConfig) -> Saved:
    """Where a checkpoint stands.

    Raises:
        UserError: a learner with another reference or sampler wrote it, whose average is another or is not there, or with other
            adapters.
    """
    meta = _read(folder)
    for key in _MODES:
        written, now = meta.get(key, "ema"), getattr(config, key)  # those of before there was a choice are "ema"
        if written != now:
            raise UserError(
                f"{folder}: written by a learner with {key} {written}, this one has {now}; "
                f"set this player's learners.*.{key} to {written} to resume, or start a new run"
            )
    lora = None if config.lora is None else config.lora.model_dump(mode="json")
    if meta.get("lora") != lora:
        written_with, has = (json.dumps(found) for found in (meta.get("lora"), lora))
        raise UserError(
            f"{folder}: written by a learner with lora {written_with}, this one has {has}; "
            "set this player's learners.*.lora to the first to resume, or start a new run"
        )
    return Saved(meta["step"], meta["version"], meta.get("warm", 0), meta["world_size"])


def commit(root: Path, step: int, warm: int = 0) -> Path:
    """Makes the partial checkpoint the complete one, durably, and removes all but the newest `KEEP`."""
    source, target = draft(root, step, warm), root / _name(step, warm)
    commit_folder(source, target)
    remove_old(root)
    return target


def remove_old(root: Path) -> None:
    """Removes checkpoints older than the newest `KEEP`, and what a crash left half-written."""
    for leftover in [*root.glob("step-*.tmp"), *root.glob("warm-*.tmp")]:
        shutil.rmtree(leftover)
    kept = _complete(root)
    for old in kept[:-KEEP]:
        shutil.rmtree(old)
    if len(kept) >= KEEP:  # no need any more to look for what could be saved of it
        for damaged in root.glob(f"*{_DAMAGED}"):
            shutil.rmtree(damaged)


def _read(folder: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((folder / _META).read_text())
    return meta


def _name(step: int, warm: int) -> str:
    return f"warm-{warm}" if warm else f"step-{step}"


def _complete(root: Path) -> list[Path]:
    """The checkpoints, oldest first."""
    found = [(m[1] == "step", int(m[2]), path) for path in root.glob("*-*") if (m := _NAME.fullmatch(path.name))]
    return [path for *_, path in sorted(found)]
