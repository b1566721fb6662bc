"""What a person watching a run sees: a live table on a terminal, a plain line every so often elsewhere.

It only shows what it is given; it asks nobody.
"""

import time

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.observe.view import RunView

LINE_EVERY_S = 10.0


class Progress:
    """Use as a context manager; `say` prints a line, `show` updates the picture."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._last_line_s = 0.0
        self._start_s = time.monotonic()

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        self.console.print(f"[{time.monotonic() - self._start_s:6.1f} s] {text}", markup=False)

    def show(self, view: RunView) -> None:
        """Draws one moment of the run."""
        if self._live is not None:
            self._live.update(picture(view))
        elif time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self.say(line(view))


def line(view: RunView) -> str:
    """The moment in one line of text."""
    players = ", ".join(
        f"{p} step {v.step}/{view.steps} v{v.version} loss {_number(v.loss)}" if v.learns else f"{p} frozen"
        for p, v in view.players.items()
    )
    return (
        f"{players}; games {view.finished} done {_playing(view)}; {_attacks(view)}; {_ties(view)}; "
        f"staleness {_number(view.staleness)} of {view.bound}" + (f"; {view.why}" if view.paused else "")
    )


def picture(view: RunView) -> Table:
    """The moment as a table for the terminal."""
    table = Table(title=f"AdvGame {view.run}", caption=view.why or None, expand=False)
    for column in (
        "player",
        "step",
        "version",
        "loss",
        "reward",
        "held games",
        "ties",
        "accuracy",
        "push s",
        "stall s",
    ):
        table.add_column(column, justify="left" if column == "player" else "right")
    for p, v in view.players.items():
        table.add_row(
            f"{p} (its turn)" if view.turn == p else p,
            f"{v.step}/{view.steps}" if v.learns else "frozen",
            str(v.version),
            _number(v.loss),
            _number(v.reward),
            str(v.held),
            _percent(v.ties),
            _number(v.accuracy),
            _number(v.push_s),
            _number(v.pause_s),
        )
    table.add_section()
    table.add_row(
        "games",
        f"{view.finished} done",
        _playing(view),
        f"{view.abandoned} abandoned",
        f"{_percent(view.valid_attacks)} valid",
        f"{_percent(view.faithful_attacks)} faithful",
        f"staleness {_number(view.staleness)}/{view.bound}",
        f"{view.verdicts} verdicts",
        f"{view.failed} failed",
        "",
    )
    return table


def _playing(view: RunView) -> str:
    """Games being played, and how many may be, as far as the engines limit them."""
    limit = "" if view.limit is None else f" of {view.limit}"
    return f"{view.in_flight}{limit} playing"


def _attacks(view: RunView) -> str:
    """How the attacks of all games so far ended: in time and format, and of those true to their seed."""
    return f"attacks {_percent(view.valid_attacks)} valid, {_percent(view.faithful_attacks)} of them faithful"


def _ties(view: RunView) -> str:
    """The shares of ties among all rows so far, of the players that learn."""
    return "ties " + ", ".join(f"{p} {_percent(v.ties)}" for p, v in view.players.items() if v.learns)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
