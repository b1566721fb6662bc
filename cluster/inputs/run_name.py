"""A run's name and the directory that follows from it. Nothing is made here: `cluster.run.folder` does that."""

import re
from datetime import UTC, datetime
from pathlib import Path

from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.recipe import Recipe


def name_run(recipe: Recipe, recipe_file: Path, now: datetime | None = None) -> Recipe:
    """The recipe with a run name: its own, or the recipe file's stem and the time (UTC)."""
    if recipe.run.name is not None:
        return recipe
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe_file.stem).lstrip("._-") or "run"
    name = f"{stem}-{(now or datetime.now(UTC)).strftime('%Y%m%d-%H%M%S')}"
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": name})})


def run_dir_of(recipe: Recipe) -> RunDir:
    """Where the run lies, absolute.

    Raises:
        UserError: `run.dir` is no path here.
        ValueError: the run has no name yet.
    """
    if recipe.run.name is None:
        raise ValueError("name_run comes before run_dir_of")
    try:
        return RunDir((Path(recipe.run.dir).expanduser() / recipe.run.name).resolve())
    except (OSError, RuntimeError, ValueError) as e:
        raise UserError(f"run.dir: {recipe.run.dir!r} is no path here ({e}); set run.dir to a folder") from None
