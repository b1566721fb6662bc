"""`train RECIPE`, `train --resume RUN`: the way of a recipe in three calls, `inputs` reads, `plan` decides, `run` runs."""

from pathlib import Path
from typing import Annotated

import psutil
import typer

from cluster.cli.options import Overrides
from cluster.exits import INTERRUPTED
from protocol.errors import UserError


def train(
    recipe: Annotated[Path | None, typer.Argument(help="a YAML file, as in deploy/recipes", show_default=False)] = None,
    set_: Overrides = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="go on with this run, from its last checkpoints", metavar="RUN")
    ] = None,
) -> None:
    """Plays and learns to the recipe's last step; on RAY_ADDRESS if that is set, else on a Ray of its own."""
    if (recipe is None) == (resume is None):
        raise UserError("train: give either a recipe file or --resume RUN")

    from cluster.inputs.request import read_recipe, read_resumed
    from cluster.observe.progress import Progress
    from cluster.plan.plan import make_plan
    from cluster.run.session import Interrupted, interrupts
    from cluster.run.train import run_plan

    with interrupts(), Progress() as progress:
        try:
            if recipe is not None:
                request = read_recipe(recipe, set_ or [], progress.say, progress.wait)
            else:
                assert resume is not None
                request = read_resumed(resume, set_ or [], progress.say, progress.wait)
            status = run_plan(make_plan(request), progress, psutil.Process().create_time())
        except Interrupted as e:
            progress.say(f"interrupted ({e})")
            status = INTERRUPTED
    raise typer.Exit(status)
