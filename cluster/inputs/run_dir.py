"""A run's name and its directory: free for a new run, or that of a run to go on with. `run.folder` makes it."""

import re
from datetime import UTC, datetime
from pathlib import Path

from cluster.exits import is_resumable
from cluster.inputs.home import expand_home
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


def check_free(run_dir: RunDir) -> None:
    """Raises `UserError` if the run's name is taken."""
    if run_dir.path.exists():
        raise UserError(
            f"run.name: {run_dir.path.name} exists in {run_dir.path.parent}; pick another name, or go on with it: "
            f"train --resume {run_dir.path}"
        )


def find_run(path: Path) -> RunDir:
    """The directory of a run to resume.

    Raises:
        UserError: it is no run, or a finished one.
    """
    run_dir = RunDir(expand_home(path, "--resume").resolve())
    if not run_dir.recipe.is_file():
        raise UserError(
            f"--resume: {run_dir.path} is no run (it has no recipe.yaml); give the path of a directory under runs/"
        )
    if not is_resumable(run_dir.read_summary().get("status")):
        raise UserError(
            f"--resume: {run_dir.path} is finished; start a new run, or raise run.steps under another run.name"
        )
    return run_dir
