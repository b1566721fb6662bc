"""`calibrate RECIPE --labels FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import Overrides, RecipeFile


def calibrate(
    recipe: RecipeFile,
    labels: Annotated[
        str, typer.Option(help="a JSONL file of criterion, category, query, responses, label; or `sandbox`")
    ],
    set_: Overrides = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the report here, too", metavar="OUT")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="judge only this many labels, spread over the file")] = None,
) -> None:
    """Measures the recipe's judge against labels: agreement, flips, failures and biases, with 95 % intervals."""
    from cluster.measure.calibration import calibrate as run_calibration
    from cluster.run.judge_engine import build_judge_engine

    run_calibration(recipe, set_ or [], labels, json_, limit, build_judge_engine)
