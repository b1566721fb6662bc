"""The command line: `python -m cluster COMMAND`. Each command is a module of this room: its arguments, then one call.

A mistake of the user's is one line on standard error and exit status 2; a run that failed is 1, one that was interrupted 130.
"""

import typer

from cluster.cli import calibrate, evaluate, export, metrics, models, plan, random_model, replay, train, watch
from cluster.console import run_app

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="AdvGame: train an attacker and a defender against each other."
)


@app.callback()
def _main() -> None:
    """Takes no options of its own."""


app.command()(train.train)
app.command()(watch.watch)
app.command()(plan.plan)
app.command()(calibrate.calibrate)
app.command()(evaluate.evaluate)
app.command()(replay.replay)
app.command()(export.export)
app.command()(metrics.metrics)
app.command("random-model")(random_model.random_model)
app.add_typer(models.models, name="models")


def main() -> None:
    """Runs the command line."""
    run_app(app)
