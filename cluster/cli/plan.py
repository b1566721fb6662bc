"""`plan RECIPE`."""

from typing import Annotated

import typer

from cluster.cli.options import Overrides, RecipeFile


def plan(
    recipe: RecipeFile,
    set_: Overrides = None,
    json_: Annotated[bool, typer.Option("--json", help="print it for programs, as in a run's plan.json")] = False,
) -> None:
    """Shows what a recipe would start, and where, after the same checks as `train`. Starts and writes nothing."""
    from cluster.inputs.request import read_recipe
    from cluster.plan.drawing import show_plan
    from cluster.plan.plan import make_plan

    show_plan(make_plan(read_recipe(recipe, set_ or [], lambda text: typer.echo(text, err=True))), json_)
