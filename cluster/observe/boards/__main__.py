"""`python -m cluster.observe.boards`: writes the boards' JSON and the documentation page, both made from the catalogue.

Run it after a change of the catalogue or of a board; a unit test fails until then.
"""

from pathlib import Path
from typing import Annotated

import typer

from cluster.console import run_app
from cluster.observe.boards.boards import BOARDS
from cluster.observe.boards.grafana import render
from cluster.observe.boards.page import render_page
from protocol.files import write_file

app = typer.Typer(add_completion=False)


def make_files() -> dict[Path, str]:
    """The files' texts, by their place in the checkout."""
    boards = {Path("deploy/grafana/dashboards") / f"{board.uid}.json": render(board) for board in BOARDS}
    return {**boards, Path("docs/metrics.md"): render_page()}


@app.command()
def write(root: Annotated[Path, typer.Option(help="the checkout")] = Path()) -> None:
    """Writes deploy/grafana/dashboards/*.json and docs/metrics.md."""
    for path, text in make_files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_file(root / path, text)
        typer.echo(path)


if __name__ == "__main__":
    run_app(app)
