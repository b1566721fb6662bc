"""What the user asks for, read and checked: a recipe file, or a run to go on with. Nothing is started or written.

The first of the three steps from a recipe to a run: `inputs` reads, `plan` decides, `run` runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.inputs.changes import check_changes, check_steps
from cluster.inputs.copies import with_copies
from cluster.inputs.find import Inputs, find_inputs
from cluster.inputs.recipe_file import load_recipe
from cluster.inputs.run_dir import check_free, find_run, name_run, run_dir_of
from cluster.rundir import RunDir
from cluster.waiting import Wait
from learners.storage.checkpoints import steps_taken
from protocol.recipe import Recipe
from protocol.roles import PLAYERS

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """A checked recipe with a run name, where its run lies or will lie, and the files that it names.

    Attributes:
        resumed: the run is there and goes on.
        changes: `key=value` texts by which a resumed run's recipe was changed.
    """

    recipe: Recipe
    run_dir: RunDir
    inputs: Inputs
    resumed: bool = False
    changes: tuple[str, ...] = ()


def read_recipe(recipe_file: Path, overrides: Sequence[str], say: Say, wait: Wait | None = None) -> Request:
    """A new run.

    Args:
        overrides: `key=value` texts.
        say: told before something takes long.
        wait: tells of it while it lasts; None: `say` does.

    Raises:
        UserError: a mistake in the recipe or in what it names, or a run name that is taken.
    """
    recipe = name_run(load_recipe(recipe_file, overrides), recipe_file)
    run_dir = run_dir_of(recipe)
    check_free(run_dir)
    _announce(recipe, say)
    return Request(recipe, run_dir, find_inputs(recipe, say, wait=wait))


def read_resumed(run: Path, overrides: Sequence[str], say: Say, wait: Wait | None = None) -> Request:
    """A run to go on with, by the recipe in its directory and its own copies of seeds. Arguments as `read_recipe`.

    Raises:
        UserError: as `read_recipe`, and for an override of a key that a resumed run keeps (`changes`).
    """
    run_dir = find_run(run)
    check_changes(overrides)
    recipe = load_recipe(run_dir.recipe, overrides)
    check_steps(recipe.run.steps, {p: steps_taken(run_dir.checkpoints(p)) for p in PLAYERS})
    recipe = with_copies(recipe, run_dir, [one.partition("=")[0].strip() for one in overrides])
    _announce(recipe, say)
    for change in overrides:
        say(f"from here on {change}")
    return Request(recipe, run_dir, find_inputs(recipe, say, run_dir, wait), resumed=True, changes=tuple(overrides))


def _announce(recipe: Recipe, say: Say) -> None:
    say(f"run {recipe.run.name}, seed {recipe.run.seed}: checking models and seeds")
