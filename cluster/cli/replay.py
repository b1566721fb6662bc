"""`replay RUN`."""

from pathlib import Path
from typing import Annotated

import typer


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
    from cluster.replay.read.choose import parse_filter
    from cluster.replay.read.show import show_replay

    show_replay(run, parse_filter(player, category, state, step, game), limit, text, export, force)
