"""The learners' reports on their way to the driver: beside the learner's steps, in order, none lost with the publisher, none twice.

    learner ──add──► Reporter (a thread: Outbox) ──► ReportBox (the publisher's) ──drain──► driver

Invariants
- a step waits for no report: `Reporter.add` returns at once, whatever the publisher does;
- a report that was asked to be taken twice is taken once, because each sender numbers its own;
- a report is kept by its sender until the driver has it, so that one which lay in a publisher that died is sent again.

No Ray: how a batch reaches the publisher is the `send` that `Reporter` is given.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from cluster.publish.stats import StepReport, WarmReport
from protocol.errors import NotHandedOver

log = structlog.get_logger(__name__)

LOOK_S = 2.0  # between two looks at whether what was sent has reached the driver

Report = StepReport | WarmReport


@dataclass(frozen=True, slots=True)
class Taken:
    """What the publisher has of one sender's reports.

    Attributes:
        holder: names the publisher's process.
        last: number of the newest report that it took; 0: none.
        drained: number of the newest one that the driver has.
    """

    holder: str
    last: int = 0
    drained: int = 0


class Outbox:
    """A sender's reports that the driver may not have yet. Numbered from 1."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, Report]] = deque()
        self._added = 0
        self._taken = Taken("")

    def add(self, report: Report) -> None:
        """One more."""
        self._added += 1
        self._kept.append((self._added, report))

    def list_due(self) -> list[tuple[int, Report]]:
        """Those that the publisher has not."""
        return [(number, report) for number, report in self._kept if number > self._taken.last]

    def note(self, taken: Taken) -> None:
        """What the publisher says that it has."""
        self._taken = taken
        while self._kept and self._kept[0][0] <= taken.drained:
            self._kept.popleft()

    @property
    def all_taken(self) -> bool:
        """Whether the publisher has everything that was added."""
        return not self._kept or self._kept[-1][0] <= self._taken.last

    @property
    def empty(self) -> bool:
        """Whether the driver has everything."""
        return not self._kept


@dataclass(slots=True)
class ReportBox:
    """The publisher's end. `holder` names its process."""

    holder: str
    _last: dict[str, int] = field(default_factory=dict)
    _drained: dict[str, int] = field(default_factory=dict)
    _waiting: list[StepReport] = field(default_factory=list)

    def take(self, sender: str, numbered: Sequence[tuple[int, Report]]) -> tuple[list[Report], Taken]:
        """Takes those that are new; gives them, and what it has of the sender now."""
        last = self._last.get(sender, 0)
        new = [report for number, report in numbered if number > last]
        self._last[sender] = max([last, *(number for number, _ in numbered)])
        self._waiting += [report for report in new if isinstance(report, StepReport)]
        return new, Taken(self.holder, self._last[sender], self._drained.get(sender, 0))

    def drain(self) -> list[StepReport]:
        """The steps' reports since the last call."""
        drained, self._waiting = self._waiting, []
        self._drained = dict(self._last)
        return drained


class Reporter:
    """A sender's thread.

    Args:
        send: brings numbered reports, perhaps none, to the publisher. Raises `NotHandedOver` where it does not answer.
        look_s: seconds between two looks at what became of what was sent.
    """

    def __init__(self, send: Callable[[list[tuple[int, Report]]], Taken], look_s: float = LOOK_S) -> None:
        self._send, self._look_s = send, look_s
        self._outbox = Outbox()
        self._changed = threading.Condition()
        self._error: Exception | None = None
        threading.Thread(target=self._work, name="reports", daemon=True).start()

    def add(self, report: Report) -> None:
        """Leaves a report, and returns at once. Raises what ended the thread, if something did."""
        with self._changed:
            self._raise_error()
            self._outbox.add(report)
            self._changed.notify_all()

    def flush(self, limit_s: float) -> bool:
        """Waits until the publisher has everything. False if it has not after `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        with self._changed:
            while not self._outbox.all_taken:
                self._raise_error()
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _raise_error(self) -> None:
        if self._error is not None:
            raise RuntimeError("the learner's reports cannot be sent") from self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._outbox.all_taken:
                    self._changed.wait(None if self._outbox.empty else self._look_s)
                due = self._outbox.list_due()
                if not due and self._outbox.empty:
                    continue
            try:
                taken = self._send(due)
            except NotHandedOver as error:
                log.warning("reports_wait", reports=len(due), why=str(error))
                time.sleep(self._look_s)
                continue
            except Exception as error:  # noqa: BLE001 - kept, and raised in the learner's own thread
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._outbox.note(taken)
                self._changed.notify_all()
