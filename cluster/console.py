"""The terminal side of every command: the console of tables, and how a command runs and fails."""

import logging
import os
import sys

import typer
from rich.console import Console

from cluster.exits import USER_ERROR
from protocol.errors import UserError

WIDTH = 132  # columns where no terminal says otherwise


def make_console() -> Console:
    """As wide as the terminal; `WIDTH` columns where the output goes elsewhere. What it prints is text, never markup or emojis."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=WIDTH)


def escape(text: str) -> str:
    """A text on one line, with every character escaped that a terminal would act on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def run_app(app: typer.Typer) -> None:
    """Runs a command line and turns the user's mistakes into one line on standard error and exit status 2."""
    logging.getLogger().setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever fetched behind the user's back
    try:
        app()
    except UserError as e:
        print(f"advgame: {escape(str(e))}", file=sys.stderr)  # noqa: T201
        sys.exit(USER_ERROR)
