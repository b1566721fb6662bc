"""From what the user names, a recipe file or a run to go on with, to a `Plan`. Nothing is started or written."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.inputs.find import find_inputs
from cluster.inputs.recipe_file import load_recipe
from cluster.inputs.run_name import name_run, run_dir_of
from cluster.plan.plan import Plan, make_plan
from cluster.run.folder import check_free, find_run

Say = Callable[[str], None]


def plan_new(recipe_file: Path, overrides: Sequence[str], say: Say) -> Plan:
    """The plan of a new run.

    Args:
        overrides: `key=value` texts.
        say: told before something takes long.

    Raises:
        UserError: a mistake in the recipe or in what it names, or a run name that is taken.
    """
    recipe = name_run(load_recipe(recipe_file, overrides), recipe_file)
    run_dir = run_dir_of(recipe)
    check_free(run_dir)
    say(f"run {recipe.run.name}, seed {recipe.run.seed}: checking models and seeds")
    return make_plan(recipe, run_dir, lambda: find_inputs(recipe, say))


def plan_resumed(run: Path, say: Say) -> Plan:
    """The plan of a run that goes on, from the recipe in its directory. Arguments and errors as `plan_new`."""
    run_dir = find_run(run)
    recipe = load_recipe(run_dir.recipe)
    say(f"run {recipe.run.name}, seed {recipe.run.seed}: checking models and seeds")
    return make_plan(recipe, run_dir, lambda: find_inputs(recipe, say, run_dir))
