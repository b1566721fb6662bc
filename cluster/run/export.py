"""`export RUN`: a Hugging Face folder of any checkpoint, also of a run that goes on, that failed or that was cut off.

What the folder holds is what the checkpoint's sampler was, as in the run's own export at its end. Needs no Ray and no GPU, and as
much memory as the model in float32. It writes no model card: what that player is worth was not measured.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.inputs.changes import check_changes
from cluster.inputs.find import own_dtype
from cluster.inputs.recipe_file import load_recipe
from cluster.rundir import RunDir
from cluster.sandbox import ensure_sandbox
from learners.storage import checkpoints
from learners.storage.consolidate import consolidate
from learners.storage.models import check_model_folder
from protocol.errors import UserError
from protocol.recipe import SANDBOX, Recipe
from protocol.roles import Player

Say = Callable[[str], None]


def export_checkpoints(
    run: Path, step: int | None, player: Player | None, out: Path | None, overrides: Sequence[str], say: Say
) -> list[Path]:
    """Writes a folder for each player, and gives them.

    Args:
        step: of the checkpoint; None: the newest that is whole.
        player: None: every player that learns.
        out: where the folders go; None: `export/` in the run's directory.
        overrides: `key=value` texts, as `--resume` takes them: the place of a model that was moved.

    Raises:
        UserError: no run, no such checkpoint, a damaged one, a model folder that is gone.
    """
    run_dir = RunDir(run.expanduser().resolve())
    if not run_dir.recipe.is_file():
        raise UserError(f"export: {run_dir.path} is no run (it has no recipe.yaml); give a directory under runs/")
    check_changes(overrides)
    recipe = load_recipe(run_dir.recipe, overrides)
    if player is not None and player not in recipe.trained:
        raise UserError(
            f"--player {player}: it does not learn in this run; its model is {recipe.models.of(player).path}"
        )
    made = []
    for one in recipe.trained if player is None else (player,):
        folder = _choose(run_dir.checkpoints(one), one, step, say)
        base = _base_of(recipe, one)
        target = (out or run_dir.path / "export").expanduser().resolve() / f"{one}-{folder.name}"
        wanted = recipe.generation.dtype if recipe.push.dtype == "auto" else recipe.push.dtype
        dtype = own_dtype(str(base)) if wanted == "auto" else wanted
        target.parent.mkdir(parents=True, exist_ok=True)
        consolidate(folder, base, target, dtype, recipe.learners.of(one).sampler)
        say(f"{one} at {folder.name}: {target}")
        made.append(target)
    return made


def _choose(root: Path, player: Player, step: int | None, say: Say) -> Path:
    if step is None:
        found = checkpoints.find(root)
        if found.damaged:
            say(f"checkpoints: {found}")
        if found.newest is None:
            raise UserError(
                f"export: {root} holds no checkpoint that is whole; the {player}'s first comes after its first steps"
            )
        folder = found.newest
    else:
        folder = root / f"step-{step}"
        if not folder.is_dir():
            there = ", ".join(str(n) for n in checkpoints.steps_kept(root)) or "none"
            raise UserError(f"--step {step}: the {player} has no such checkpoint; it has {there}")
        if (why := checkpoints.find_damage(folder)) is not None:
            raise UserError(f"--step {step}: {folder} is damaged ({why}); take another step")
    if (why := checkpoints.find_altered(folder, 0, 1)) is not None:
        raise UserError(f"export: {folder} is damaged ({why}); take another step with --step")
    return folder


def _base_of(recipe: Recipe, player: Player) -> Path:
    """The model that the player started from."""
    named = recipe.models.of(player).path
    if named == SANDBOX:
        return Path(getattr(ensure_sandbox(), player))
    folder = Path(named).expanduser().resolve()
    check_model_folder(str(folder), f"models.{player}.path")
    return folder
