"""The checkpoint folders of one learner group: `step-N`, whole or not there.

A checkpoint is written as `step-N.tmp`, synced and renamed by rank 0 once every rank is done, so a folder without the suffix is
complete. `checkpoint.json` in it says what a reader must know before it opens the rest. The other files belong to
the engine.
"""

import json
import re
import shutil
from pathlib import Path

from protocol.errors import UserError
from protocol.files import commit_folder
from protocol.recipe import LearnerConfig

_META = "checkpoint.json"
_MODES = ("reference", "sampler")  # they decide whether there is an average in it, and of what
_STEP = re.compile(r"step-(\d+)")
KEEP = 2  # the newest, and one more in case its disk turns out bad


def draft(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written before it is committed."""
    return root / f"step-{step}.tmp"


def newest(root: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = [(int(m[1]), p) for p in root.glob("step-*") if (m := _STEP.fullmatch(p.name)) and (p / _META).is_file()]
    return max(found)[1] if found else None


def write_meta(folder: Path, *, step: int, version: int, ranks: int, config: LearnerConfig) -> None:
    """Steps that the checkpoint contains, the policy version they ended at, and what a learner must be like to go on from it."""
    modes = {key: getattr(config, key) for key in _MODES}
    lora = None if config.lora is None else config.lora.model_dump(mode="json")
    meta = {"step": step, "version": version, "world_size": ranks, "lora": lora} | modes
    (folder / _META).write_text(json.dumps(meta))


def read_meta(folder: Path, ranks: int, config: LearnerConfig) -> tuple[int, int]:
    """(step, version) of a checkpoint.

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
    return meta["step"], meta["version"]


def commit(root: Path, step: int) -> Path:
    """Makes the partial checkpoint of `step` the complete one, durably, and removes all but the newest `KEEP`."""
    source, target = draft(root, step), root / f"step-{step}"
    commit_folder(source, target)
    remove_old(root)
    return target


def remove_old(root: Path) -> None:
    """Removes checkpoints older than the newest `KEEP`, and what a crash left half-written."""
    for leftover in root.glob("step-*.tmp"):
        shutil.rmtree(leftover)
    complete = sorted((int(m[1]), p) for p in root.glob("step-*") if (m := _STEP.fullmatch(p.name)))
    for _, old in complete[:-KEEP]:
        shutil.rmtree(old)
