"""The checkpoint folders of one learner group: `step-N`, or `warm-N` before the first step; whole or not there.

A checkpoint is written as `step-N.tmp`, synced and renamed by rank 0 once every rank is done, so a folder without the suffix is
complete. `warm-N` holds N steps of the warm start and is older than any `step-N`. `checkpoint.json` in it says what a reader must
know before it opens the rest. The other files belong to the engine.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import UserError
from protocol.files import commit_folder
from protocol.recipe import LearnerConfig

_META = "checkpoint.json"
_MODES = ("reference", "sampler")  # they decide whether there is an average in it, and of what
_NAME = re.compile(r"(warm|step)-(\d+)")
KEEP = 2  # the newest, and one more in case its disk turns out bad


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a checkpoint stands: steps of the run, the policy version they ended at, and steps of the warm start before them."""

    step: int
    version: int
    warm: int = 0


def draft(root: Path, step: int, warm: int = 0) -> Path:
    """Where a checkpoint is written before it is committed. `warm`: steps of the warm start, where it is of that."""
    return root / f"{_name(step, warm)}.tmp"


def newest(root: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = [path for path in _complete(root) if (path / _META).is_file()]
    return found[-1] if found else None


def write_meta(folder: Path, *, step: int, version: int, ranks: int, config: LearnerConfig, warm: int = 0) -> None:
    """Where the checkpoint stands (`Saved`), and what a learner must be like to go on from it."""
    modes = {key: getattr(config, key) for key in _MODES}
    lora = None if config.lora is None else config.lora.model_dump(mode="json")
    meta = {"step": step, "version": version, "warm": warm, "world_size": ranks, "lora": lora} | modes
    (folder / _META).write_text(json.dumps(meta))


def read_meta(folder: Path, ranks: int, config: LearnerConfig) -> Saved:
    """Where a checkpoint stands.

    Raises:
        UserError: another number of ranks wrote it (ZeRO-3 states are one shard a rank and load only as they were written), or a
            learner with another reference or sampler, whose average is another or is not there, or with other adapters.
    """
    meta = json.loads((folder / _META).read_text())
    if meta["world_size"] != ranks:
        raise UserError(
            f"{folder}: written by {meta['world_size']} ranks, this learner group has {ranks}; "
            f"set this player's learners.*.ranks to {meta['world_size']} to resume, or start a new run"
        )
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
    return Saved(meta["step"], meta["version"], meta.get("warm", 0))


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
    for old in _complete(root)[:-KEEP]:
        shutil.rmtree(old)


def _name(step: int, warm: int) -> str:
    return f"warm-{warm}" if warm else f"step-{step}"


def _complete(root: Path) -> list[Path]:
    """The checkpoints, oldest first."""
    found = [(m[1] == "step", int(m[2]), path) for path in root.glob("*-*") if (m := _NAME.fullmatch(path.name))]
    return [path for *_, path in sorted(found)]
