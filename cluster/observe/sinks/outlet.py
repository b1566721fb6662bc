"""One sink's thread and its bounded queue: whoever hands a record over never waits, whatever the sink does.

Invariant: every record that was offered is in the end either written or counted as dropped.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from cluster.observe.sinks.sink import Record, RunFacts, Sink
from protocol.errors import trail

LIMIT = 1000  # records that wait, of up to some hundred numbers each: minutes of a fast run, an hour of a slow one
TEXT = 200  # characters of what a sink's library says

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SinkCounts:
    """Records that a sink took, and those that it did not. `failed`: what went wrong first, in words; empty: nothing."""

    written: int
    dropped: int
    failed: str = ""


class Outlet:
    """A sink, written to in the background.

    Args:
        name: as the recipe has it.
        limit: records that may wait.
    """

    def __init__(self, name: str, sink: Sink, run: RunFacts, limit: int = LIMIT) -> None:
        self.name: Final = name
        self._sink, self._run, self._limit = sink, run, limit
        self._waiting: queue.SimpleQueue[Record | str] = queue.SimpleQueue()  # a text is the run's status, and the end
        self._offered = self._written = self._refused = self._failed = 0
        self._complaint, self._told = "", False
        # A daemon: one that hangs in its library may not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"sink-{name}", daemon=True)
        self._thread.start()

    def offer(self, record: Record) -> None:
        """Hands a record over, or drops it if too many wait."""
        self._offered += 1
        if self._waiting.qsize() >= self._limit:
            self._refused += 1
            self._complain(f"is too slow: {self._limit} records wait for it, newer ones are dropped")
        else:
            self._waiting.put(record)

    def counts(self) -> SinkCounts:
        """So far."""
        return SinkCounts(self._written, self._refused + self._failed, self._complaint)

    def take_complaint(self) -> str:
        """What went wrong first, in words, the first time that this is asked after it; else empty."""
        if self._told or not self._complaint:
            return ""
        self._told = True
        return f"{self.name} {self._complaint}"

    def end(self, status: str) -> None:
        """Tells the sink to write what waits and to close; returns at once."""
        self._waiting.put(status)

    def close(self, deadline_s: float) -> SinkCounts:
        """Waits until then (monotonic seconds) for what `end` asked for. What is not written by then counts as dropped."""
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._thread.is_alive():
            self._complain("was not done in time at the end of the run")
            self._sink.abandon()
        written = self._written
        return SinkCounts(written, self._offered - written, self._complaint)

    def _complain(self, what: str) -> None:
        if not self._complaint:
            self._complaint = what

    def _work(self) -> None:
        """The sink's own thread."""
        open_ = self._try("could not be opened", partial(self._sink.start, self._run))
        while not isinstance(taken := self._waiting.get(), str):
            if open_ and self._try("took no record", partial(self._sink.write, taken)):
                self._written += 1
            else:
                self._failed += 1
        if open_:
            self._try("could not be closed", partial(self._sink.end, taken))

    def _try(self, what: str, call: Callable[[], None]) -> bool:
        """Whether a call went well. Whatever a sink's library raises, the run goes on."""
        try:
            call()
        except Exception as e:  # noqa: BLE001
            if not self._complaint:  # one that fails at every record would fill the log
                _log.warning("a sink failed", sink=self.name, trail=trail(e))
            said = (str(e).strip().splitlines() or [""])[0][:TEXT]
            self._complain(f"{what} ({type(e).__name__}{': ' if said else ''}{said})")
            return False
        return True
