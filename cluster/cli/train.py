"""`train RECIPE`, `train --resume RUN`."""

from pathlib import Path
from typing import Annotated

import psutil
import typer

from cluster.cli.options import Overrides


def train(
    recipe: Annotated[Path | None, typer.Argument(help="a YAML file, as in deploy/recipes", show_default=False)] = None,
    set_: Overrides = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="go on with this run, from its last checkpoints", metavar="RUN")
    ] = None,
) -> None:
    """Plays and learns to the recipe's last step; on RAY_ADDRESS if that is set, else on a Ray of its own."""
    from cluster.run.train import train_run

    raise typer.Exit(train_run(recipe, set_ or [], resume, psutil.Process().create_time()))
