"""Making, finding and locking a run's directory. Its names are `cluster.rundir`'s."""

import contextlib
import fcntl
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cluster.inputs.recipe_file import dump_recipe
from cluster.run.states import is_resumable
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.files import make_folder, write_file
from protocol.recipe import Recipe
from protocol.roles import PLAYERS, Player


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


def make_run(recipe: Recipe, quarantine: str) -> RunDir:
    """Makes the directory with the resolved recipe in it; all of it appears at once.

    Raises:
        UserError: the name is taken, or the place cannot be written.
    """
    path = run_path(recipe)
    check_free(recipe)
    try:
        with make_folder(path) as draft:
            new = RunDir(draft)
            new.logs.mkdir()
            new.replay.mkdir()
            (draft / "checkpoints").mkdir()
            write_file(new.recipe, dump_recipe(recipe))
            write_file(new.quarantine, quarantine)
    except OSError as e:
        raise UserError(
            f"run.dir: {path.parent} cannot be written ({e.strerror}); set run.dir to a place that can"
        ) from None
    return RunDir(path)


def find_run(path: Path) -> RunDir:
    """The directory of a run to resume.

    Raises:
        UserError: it is no run, or a finished one.
    """
    run_dir = RunDir(path.expanduser().resolve())
    if not run_dir.recipe.is_file():
        raise UserError(
            f"--resume: {run_dir.path} is no run (it has no recipe.yaml); give the path of a directory under runs/"
        )
    if not is_resumable(run_dir.read_summary().get("status")):
        raise UserError(
            f"--resume: {run_dir.path} is finished; start a new run, or raise run.steps under another run.name"
        )
    return run_dir


@contextlib.contextmanager
def lock_run(run_dir: RunDir) -> Iterator[None]:
    """Keeps a second driver out of the run for as long as this one lives.

    Raises:
        UserError: another driver has it.
    """
    with run_dir.lock.open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"--resume: {run_dir.path} is being run by another driver; wait for its end, or interrupt it"
            ) from None
        yield


def resumes_above_zero(run_dir: RunDir, versions: Mapping[Player, int]) -> set[Player]:
    """The players whose learners push first thing when the run is resumed.

    One that stopped before its first version, with no checkpoint either, starts at version 0 again and pushes nothing.

    Args:
        versions: the highest version that the replay buffer saw of each player.
    """
    return {p for p in PLAYERS if versions.get(p, 0) > 0 or any(run_dir.checkpoints(p).glob("step-*[0-9]"))}
