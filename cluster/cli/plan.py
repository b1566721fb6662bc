"""`plan RECIPE`."""

import json
from typing import Annotated

import typer

from cluster.cli.options import Overrides, RecipeFile


def plan(
    recipe: RecipeFile,
    set_: Overrides = None,
    json_: Annotated[bool, typer.Option("--json", help="print it for programs, as in a run's plan.json")] = False,
) -> None:
    """Shows what a recipe would start, and where; starts no run and makes no run directory.

    It makes the checks that `train` makes: the sandbox is built if the recipe names it, and an API judge is asked one question.
    """
    from cluster.console import make_console
    from cluster.inputs.request import read_recipe
    from cluster.plan.drawing import draw_plan, plan_json
    from cluster.plan.plan import make_plan

    decided = make_plan(read_recipe(recipe, set_ or [], lambda text: typer.echo(text, err=True)))
    if json_:
        typer.echo(json.dumps(plan_json(decided), indent=2))
    else:
        make_console().print(draw_plan(decided))
