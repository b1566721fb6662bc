"""The command line: `python -m cluster train RECIPE`, `calibrate RECIPE --labels FILE`, `replay RUN`, `random-model FOLDER`.

A mistake of the user's is one line on standard error and exit status 2; a run that failed is 1, one that was interrupted 130.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import psutil
import typer

from protocol.errors import UserError

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="AdvGame: train an attacker and a defender against each other."
)

FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130


@app.callback()
def _main() -> None:
    """Takes no options of its own."""


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="a YAML file, as in deploy/recipes", show_default=False)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="override one key, as in run.seed=1; repeatable", metavar="KEY=VALUE"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="go on with this run, from its last checkpoints", metavar="RUN")
    ] = None,
) -> None:
    """Plays and learns to the recipe's last step; on RAY_ADDRESS if that is set, else on a Ray of its own."""
    from cluster.train import train_run

    raise typer.Exit(train_run(recipe, set_ or [], resume, psutil.Process().create_time()))


@app.command()
def calibrate(
    recipe: Annotated[Path, typer.Argument(help="a YAML file, as in deploy/recipes")],
    labels: Annotated[
        str, typer.Option(help="a JSONL file of criterion, category, query, responses, label; or `sandbox`")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="override one key, as in judge.verdicts=3; repeatable", metavar="KEY=VALUE"),
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write the report here, too", metavar="OUT")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="judge only this many labels, spread over the file")] = None,
) -> None:
    """Measures the recipe's judge against labels: agreement, flips, failures and biases, with 95 % intervals."""
    from cluster.calibrate import calibrate as run_calibration

    run_calibration(recipe, set_ or [], labels, json_, limit)


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="a directory under runs/; it may be running")],
    player: Annotated[str | None, typer.Option(help="only this player's rows: attacker or defender")] = None,
    category: Annotated[str | None, typer.Option(help="only rows of such seeds: harmful or benign")] = None,
    state: Annotated[str | None, typer.Option(help="only rows with an item that ended so, as in malformed")] = None,
    step: Annotated[
        str | None, typer.Option(help="only rows that the learner steps A to B learned, both included", metavar="A:B")
    ] = None,
    game: Annotated[int | None, typer.Option(help="only this game's rows")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="list or export at most so many rows")] = None,
    text: Annotated[bool, typer.Option("--text", help="show and export what the models wrote, harmful or not")] = False,
    export: Annotated[
        Path | None, typer.Option(help="write the rows here: .parquet, .jsonl or .arrow", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the exported file if it exists")] = False,
) -> None:
    """Shows, filters and exports what a run's replay buffer holds and what became of it. Reads only."""
    from cluster.replay.choose import parse_filter
    from cluster.replay.show import show_replay

    show_replay(run, parse_filter(player, category, state, step, game), limit, text, export, force)


@app.command("random-model")
def random_model(
    folder: Annotated[Path, typer.Argument(help="where the model goes; must not exist")],
    texts: Annotated[Path, typer.Option(help="a JSONL seed file; the tokenizer is trained on it")],
    seed: Annotated[int, typer.Option(help="of the weights")] = 0,
) -> None:
    """Makes a model of 16 M random parameters, Qwen2.5 architecture, with a tokenizer and a chat template."""
    from cluster.random_model import make_random_model
    from protocol.seeds import read_seeds

    if folder.exists():
        raise UserError(f"random-model: {folder} exists; give a new name")
    n = make_random_model(folder, [s.text for s in read_seeds(texts, "--texts")[0]], seed)
    typer.echo(f"{folder}: {n / 1e6:.1f} M random parameters")


def main() -> None:
    """Runs the command line and turns the user's mistakes into one line."""
    logging.getLogger().setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever fetched behind the user's back
    try:
        app()
    except UserError as e:
        print(f"advgame: {e}", file=sys.stderr)  # noqa: T201
        sys.exit(USER_ERROR)
