"""How a generation or judge worker is, and when it is started or replaced. Pure: checkups in, decisions out.

    down ──► ready ◄──► busy
     ▲         └──► suspect ◄──┘      suspect for `health.replace_s`: replaced, that is, down

A worker is suspect when it has requests and its engine takes no step, when asks to it went elsewhere or expired several times in a
row, or when it does not answer at all: an engine that hangs answers, and a process that is stopped is not dead. One that is down
(no engine: it was made anew, or threw a broken one away) is started. It kills nobody and asks nobody: `supervisor` does.
"""

from dataclasses import dataclass
from typing import Literal

from protocol.exchange import Vitals
from protocol.recipe import HealthConfig

State = Literal["ready", "busy", "suspect", "down"]


@dataclass(frozen=True, slots=True)
class Checkup:
    """What one look at a worker found.

    Attributes:
        vitals: its answer; None if there was none in time.
        gone: Ray says that its process is gone, or cannot be reached.
        missed: asks in a row that it did not answer before they went elsewhere or expired, as its callers counted.
    """

    vitals: Vitals | None = None
    gone: bool = False
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """It has no engine, and nobody is building one: have it built."""


@dataclass(frozen=True, slots=True)
class Replace:
    """End its process; Ray starts another. `reason` is one word."""

    reason: str


Action = Start | Replace


class WorkerHealth:
    """One worker's. Feed it every checkup; times are the caller's clock, seconds.

    Args:
        config: the recipe's `health` section.
        start_deadline_s: for its start. One that takes longer is replaced.
        now_s: the time. The worker counts as ready.
    """

    def __init__(self, config: HealthConfig, start_deadline_s: float, now_s: float) -> None:
        self._config, self._start_deadline_s = config, start_deadline_s
        self.state: State = "ready"
        self._steps: int | None = None
        self._moved_s = self._answered_s = now_s
        self._missed = 0  # counted before it was last up: a fresh worker is not at fault of it
        self._suspect_s: float | None = None  # since when
        self._down_s: float | None = None

    def note(self, checkup: Checkup, now_s: float) -> Action | None:
        """A look at the worker. Gives what is to be done; a start that was asked for is under way at the next look."""
        if self.state == "down":
            self._missed = checkup.missed
        if checkup.gone:
            self._answered_s = now_s
            return self._note_down(starting=True, now_s=now_s)  # Ray brings its process back
        vitals = checkup.vitals
        if vitals is not None:
            self._answered_s = now_s
            if not vitals.ready:
                return self._note_down(vitals.starting, now_s)
        elif self.state == "down":
            return self._note_down(starting=True, now_s=now_s)  # whoever builds an engine does not answer meanwhile
        why = self._suspicion(checkup, now_s)
        if vitals is None and why is None:
            return None
        self._down_s = None
        if why is None:
            assert vitals is not None
            self.state, self._suspect_s = "busy" if vitals.running else "ready", None
            return None
        if self._suspect_s is None:
            self.state, self._suspect_s = "suspect", now_s
        if now_s - self._suspect_s < self._config.replace_s:
            return None
        self._forget(now_s)
        return Replace(why)

    def _note_down(self, starting: bool, now_s: float) -> Action | None:
        if self._down_s is None:
            self._down_s = now_s
        self.state, self._suspect_s, self._moved_s = "down", None, now_s
        if now_s - self._down_s >= self._start_deadline_s:
            self._forget(now_s)
            return Replace("start_deadline")
        return None if starting else Start()

    def _suspicion(self, checkup: Checkup, now_s: float) -> str | None:
        config, vitals = self._config, checkup.vitals
        if vitals is None:
            return "silent" if now_s - self._answered_s >= config.silent_s else None
        idle = not vitals.running or vitals.steps is None or vitals.paused
        if idle or vitals.steps != self._steps:
            self._moved_s = now_s
        self._steps = vitals.steps
        if now_s - self._moved_s >= config.stuck_s:
            return "stuck"
        self._missed = min(self._missed, checkup.missed)
        return "deadlines" if checkup.missed - self._missed >= config.misses else None

    def _forget(self, now_s: float) -> None:
        self.state, self._suspect_s, self._down_s = "down", None, now_s
        self._moved_s = self._answered_s = now_s
