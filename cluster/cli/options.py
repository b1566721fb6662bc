"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(help="a YAML file, as in deploy/recipes")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="override one key, as in run.seed=1; repeatable", metavar="KEY=VALUE"),
]
