"""The console that commands print their tables to."""

from rich.console import Console

WIDTH = 132  # columns where no terminal says otherwise


def make_console() -> Console:
    """As wide as the terminal; `WIDTH` columns where the output goes elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)
