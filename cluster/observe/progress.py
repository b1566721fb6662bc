"""What a person watching a run sees: a live picture on a terminal, a plain line every so often elsewhere.

It only shows what it is given; it asks nobody. `picture` and `line` say how a moment looks, `cluster.waiting` how a wait does.
"""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from cluster.observe.line import line
from cluster.observe.picture import picture
from cluster.observe.view import RunView
from cluster.waiting import TOLD_S, Note, Pending, wait_in_lines

LINE_EVERY_S = 10.0


class Progress:
    """Use as a context manager; `say` prints a line, `show` updates the picture, `wait` tells of a long wait while it lasts."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._picture: RenderableType | None = None
        self._pending: dict[Pending, Spinner] = {}
        self._last_line_s = 0.0
        self._start_s = time.monotonic()

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True, get_renderable=self._draw)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        # A `Text`, for whichever console it is: a string has its `:names:` turned into emojis, even without markup.
        self.console.print(Text(f"[{time.monotonic() - self._start_s:6.1f} s] {text}"))

    def show(self, view: RunView) -> None:
        """Draws one moment of the run."""
        if self._live is not None:
            self._picture = picture(view)
        elif time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self.say(line(view))

    @contextlib.contextmanager
    def wait(self, what: str, usual: str = "") -> Iterator[Note]:
        """A `waiting.Wait`: below the picture on a terminal, lines elsewhere. Several may last at once."""
        if self._live is None:
            with wait_in_lines(self.say)(what, usual) as note:
                yield note
            return
        pending = Pending(what, usual)
        self._pending[pending] = Spinner("dots")
        try:
            yield pending.note
        finally:
            del self._pending[pending]
        if pending.seconds >= TOLD_S:
            self.say(f"waited {pending.seconds:.0f} s for {what}")

    def _draw(self) -> RenderableType:
        """The picture, if there is one, and the waits below it, as they are now. Called by the thread that refreshes."""
        shown: list[RenderableType] = [] if self._picture is None else [self._picture]
        for pending, spinner in list(self._pending.items()):
            spinner.update(text=Text(pending.describe(), no_wrap=True, overflow="ellipsis"))
            shown.append(spinner)
        return Group(*shown)
