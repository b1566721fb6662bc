"""Long waits that a person is told about while they last: for what, how long already, how far it is, and what is usual.

    with wait("the engines", "about a minute") as note:
        ...
        note("3 of 4 engines serve")

A `Wait` is how a module says so without knowing where it is shown: as lines of text here, on a terminal by `observe.progress`.
Whoever waits keeps a deadline of its own; this one ends nothing.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

LINE_EVERY_S = 15.0
TOLD_S = 5.0  # a wait that was shorter than this is not worth a line when it ends

Say = Callable[[str], None]
Note = Callable[[str], None]
Wait = Callable[
    [str, str], AbstractContextManager[Note]
]  # (for what, what is usual or ""): gives who takes how far it is


@dataclass(slots=True, eq=False)
class Pending:
    """One wait. `what` follows "waiting for"; `usual` and `far` may be empty."""

    what: str
    usual: str
    far: str = ""
    since_s: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long already."""
        return time.monotonic() - self.since_s

    def note(self, far: str) -> None:
        """How far it is, in words."""
        self.far = far

    def describe(self) -> str:
        """All of it in one line."""
        far = f"{self.far}; " if self.far else ""
        usual = f" ({self.usual})" if self.usual else ""
        return f"waiting for {self.what}: {far}{self.seconds:.0f} s so far{usual}"


def wait_in_lines(say: Say, every_s: float = LINE_EVERY_S) -> Wait:
    """Tells of waits by `say`: a line every `every_s`, from a thread of its own, because the waiting one may be blocked."""

    @contextlib.contextmanager
    def wait(what: str, usual: str) -> Iterator[Note]:
        pending, over = Pending(what, usual), threading.Event()

        def tell() -> None:
            while not over.wait(every_s):
                say(pending.describe())

        thread = threading.Thread(target=tell, name="waiting", daemon=True)
        thread.start()
        try:
            yield pending.note
        finally:
            over.set()
            thread.join()
        if pending.seconds >= TOLD_S:
            say(f"waited {pending.seconds:.0f} s for {what}")

    return wait
