"""The run directory: made once, written whole or not at all (DESIGN.md, "A run's directory").

It owns names and atomic writes, not the formats of what is inside.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.recipe_file import dump_recipe
from protocol.errors import UserError
from protocol.recipe import Recipe


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
    name = f"{recipe_file.stem}-{(now or datetime.now(UTC)).strftime('%Y%m%d-%H%M%S')}"
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": name})})


def run_path(recipe: Recipe) -> Path:
    """Where the run lies, absolute."""
    if recipe.run.name is None:
        raise ValueError("name_run comes before run_path")
    return (Path(recipe.run.dir).expanduser() / recipe.run.name).resolve()


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


def find_run(path: Path) -> Path:
    """The directory of a run to resume.

    Raises:
        UserError: it is no run, or a finished one.
    """
    path = path.expanduser().resolve()
    if not (path / "recipe.yaml").is_file():
        raise UserError(f"--resume: {path} is no run (it has no recipe.yaml); give the path of a directory under runs/")
    summary = path / "summary.json"
    if summary.is_file() and json.loads(summary.read_text()).get("status") == "finished":
        raise UserError(f"--resume: {path} is finished; start a new run, or raise run.steps under another run.name")
    return path
