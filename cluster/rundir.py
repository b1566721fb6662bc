"""The run directory: made once, written whole or not at all (DESIGN.md, "A run's directory").

It owns names and atomic writes, not the formats of what is inside.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.recipe_file import dump_recipe
from protocol.errors import UserError
from protocol.recipe import Recipe
from protocol.roles import PLAYERS, Player


def write_whole(path: Path, data: str | bytes) -> None:
    """Writes a file under a temporary name, syncs it, and renames it: a reader sees the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as f:
        f.write(data.encode() if isinstance(data, str) else data)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_whole` of indented JSON."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def name_run(recipe: Recipe, recipe_file: Path, now: datetime | None = None) -> Recipe:
    """The recipe with a run name: its own, or the recipe file's stem and the time (UTC)."""
    if recipe.run.name is not None:
        return recipe
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe_file.stem).lstrip("._-") or "run"
    name = f"{stem}-{(now or datetime.now(UTC)).strftime('%Y%m%d-%H%M%S')}"
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": name})})


def run_path(recipe: Recipe) -> Path:
    """Where the run lies, absolute."""
    if recipe.run.name is None:
        raise ValueError("name_run comes before run_path")
    try:
        return (Path(recipe.run.dir).expanduser() / recipe.run.name).resolve()
    except (OSError, RuntimeError, ValueError) as e:
        raise UserError(f"run.dir: {recipe.run.dir!r} is no path here ({e}); set run.dir to a folder") from None


def check_free(recipe: Recipe) -> None:
    """Raises `UserError` if the run's name is taken."""
    path = run_path(recipe)
    if path.exists():
        raise UserError(
            f"run.name: {recipe.run.name} exists in {path.parent}; pick another name, or go on with it: train --resume {path}"
        )


def make_run(recipe: Recipe, quarantine: str) -> Path:
    """Makes the directory with the resolved recipe in it; all of it appears at once.

    Raises:
        UserError: the name is taken, or the place cannot be written.
    """
    path = run_path(recipe)
    check_free(recipe)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        (temporary / "logs").mkdir(parents=True)
        (temporary / "checkpoints").mkdir()
        (temporary / "replay").mkdir()
        write_whole(temporary / "recipe.yaml", dump_recipe(recipe))
        write_whole(temporary / "quarantine.jsonl", quarantine)
        temporary.rename(path)
    except OSError as e:
        raise UserError(
            f"run.dir: {path.parent} cannot be written ({e.strerror}); set run.dir to a place that can"
        ) from None
    return path


def read_summary(path: Path) -> dict[str, Any]:
    """The run's `summary.json`; empty if there is none that can be read."""
    try:
        value: dict[str, Any] = json.loads((path / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return value


def resumes_above_zero(path: Path, versions: Mapping[Player, int]) -> set[Player]:
    """The players whose learners push first thing when the run is resumed.

    One that stopped before its first version, with no checkpoint either, starts at version 0 again and pushes nothing.

    Args:
        path: the run directory.
        versions: the highest version that the replay buffer saw of each player.
    """
    return {p for p in PLAYERS if versions.get(p, 0) > 0 or any((path / "checkpoints" / p).glob("step-*[0-9]"))}


def judge_ledger(path: Path) -> Path:
    """Where an API judge's account of tokens and money lies in a run directory."""
    return path / "judge" / "ledger.jsonl"


@contextlib.contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Keeps a second driver out of the run for as long as this one lives.

    Raises:
        UserError: another driver has it.
    """
    with (path / ".lock").open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"--resume: {path} is being run by another driver; wait for its end, or interrupt it"
            ) from None
        yield


def find_run(path: Path) -> Path:
    """The directory of a run to resume.

    Raises:
        UserError: it is no run, or a finished one.
    """
    path = path.expanduser().resolve()
    if not (path / "recipe.yaml").is_file():
        raise UserError(f"--resume: {path} is no run (it has no recipe.yaml); give the path of a directory under runs/")
    if read_summary(path).get("status") == "finished":
        raise UserError(f"--resume: {path} is finished; start a new run, or raise run.steps under another run.name")
    return path
