"""`calibrate RECIPE|RUN --labels FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import Overrides


def calibrate(
    recipe: Annotated[
        Path, typer.Argument(help="a YAML file, as in deploy/recipes, or a run's directory", metavar="RECIPE|RUN")
    ],
    labels: Annotated[
        str, typer.Option(help="a JSONL file of criterion, category, query, responses, label; or `sandbox`")
    ],
    set_: Overrides = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the report here, too", metavar="OUT")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="judge only this many labels, spread over the file")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="a folder for the Judge Card; without it the card lies in RUN", metavar="FOLDER"),
    ] = None,
    reword: Annotated[
        bool, typer.Option(help="judge all labels once more, and with each rewording of the rubrics")
    ] = True,
) -> None:
    """Measures the recipe's judge against labels: agreement, flips, failures and biases, with 95 % intervals; its Judge Card."""
    from cluster.measure.calibration import calibrate as run_calibration
    from cluster.run.card.write import write_cards
    from cluster.run.judge_engine import build_judge_engine

    run_calibration(recipe, set_ or [], labels, json_, limit, build_judge_engine, out, reword, write_cards)
