"""`export RUN`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import Overrides
from protocol.errors import UserError
from protocol.roles import PLAYERS


def export(
    run: Annotated[Path, typer.Argument(help="a directory under runs/; it may be running")],
    step: Annotated[int | None, typer.Option(min=0, help="of which checkpoint; without it, the newest")] = None,
    player: Annotated[str | None, typer.Option(help="attacker or defender; without it, each that learns")] = None,
    out: Annotated[
        Path | None, typer.Option(help="where the folders go; without it, into RUN/export", metavar="FOLDER")
    ] = None,
    set_: Overrides = None,
) -> None:
    """Makes Hugging Face folders of a run's checkpoints, whether it goes on, failed or was cut off."""
    if player is not None and player not in PLAYERS:
        raise UserError(f"--player: {player} is neither attacker nor defender")
    from cluster.run.export import export_checkpoints

    export_checkpoints(run, step, player, out, set_ or [], typer.echo)
