"""What the router knows of one ask and of one worker, and what it says. Books only; `router` decides.

Times are the caller's clock, seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol.pace import backoff_s

AVOID_S = 1.0  # after a first failure; twice as long after each further one in a row
AVOID_MAX_S = 60.0
FRESH_S = 10.0  # what a worker said of other callers' questions is believed for so long


@dataclass(slots=True)
class AskState:
    """An ask that has not ended."""

    questions: int
    deadline_s: float
    absent_s: float
    heard_s: float  # when a worker that has it was last heard of
    at: dict[int, float] = field(default_factory=dict)  # worker -> since when
    begun: set[int] = field(default_factory=set)  # workers that have begun to answer
    failed: set[int] = field(default_factory=set)  # workers that failed of it: asked again only where no other is open
    losses: int = 0  # workers that were lost while they were at it, or failed of it


@dataclass(slots=True)
class WorkerState:
    """A worker, as one caller sees it."""

    moved_s: float  # when its engine last moved, or had nothing to do
    away: int = 0  # questions by which workers of one's own share are preferred to it
    ready: bool = True
    steps: int | None = None
    others: int = 0  # questions of other callers
    others_s: float = -math.inf  # when that was said
    own: int = 0  # questions of this one
    sent: dict[int, int] = field(default_factory=dict)  # ask -> number of the exchange that carried it; 0: none yet
    given_up: list[int] = field(default_factory=list)  # to be told
    told: int = 0  # the last exchange that carried something given up
    calls: dict[int, tuple[float, float]] = field(default_factory=dict)  # that are out, oldest first: since when, hold
    avoid_until_s: float = 0.0
    failures: int = 0  # in a row
    missed: int = 0  # asks in a row that went elsewhere or expired
    chosen: int = 0  # how often, so that idle workers take turns
    probed_s: float = -math.inf

    def load(self, now_s: float, unheard: int = 0) -> int:
        """Questions in its hands. `unheard`: those of other callers, of a worker of their share that has not said lately."""
        return self.own + (self.others if self.is_fresh(now_s) else unheard if self.away else 0)

    def is_fresh(self, now_s: float) -> bool:
        """Whether it has said lately how many questions of others it has."""
        return now_s - self.others_s < FRESH_S

    def rank(self, now_s: float, unheard: int = 0) -> tuple[int, int]:
        """The lower, the rather it is asked. `unheard`: as for `load`."""
        return self.load(now_s, unheard) + self.away, self.chosen

    def is_open(self, now_s: float, silent_s: float, stuck_s: float) -> bool:
        """Whether it may be asked."""
        free = self.ready and self.avoid_until_s <= now_s
        return free and not self.is_silent(now_s, silent_s) and not self.is_stuck(now_s, stuck_s)

    def is_silent(self, now_s: float, limit_s: float) -> bool:
        """Whether a call to it is out for `limit_s`."""
        return bool(self.calls) and now_s - next(iter(self.calls.values()))[0] >= limit_s

    def owes_reply(self, now_s: float, slack_s: float) -> bool:
        """Whether its oldest call should be back."""
        since_s, hold_s = next(iter(self.calls.values()), (now_s, 0.0))
        return now_s - since_s >= hold_s + slack_s

    def is_stuck(self, now_s: float, limit_s: float) -> bool:
        """Whether it has asks, and its engine stands still for `limit_s`."""
        return bool(self.sent) and self.steps is not None and now_s - self.moved_s >= limit_s

    def avoid(self, now_s: float) -> None:
        """It failed. What fails together counts as one failure."""
        if self.avoid_until_s <= now_s:
            self.avoid_until_s = now_s + backoff_s(AVOID_S, AVOID_MAX_S, self.failures)
            self.failures += 1

    def forget_lost_calls(self, number: int, before_s: float) -> None:
        """It answered call `number`. Those that went out before it, and before that time, or their replies, were lost."""
        for earlier, (since_s, _) in list(self.calls.items()):
            if earlier < number and since_s <= before_s:
                del self.calls[earlier]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A call to make now.

    Attributes:
        number: names it when it comes back.
        asks: new for the worker.
        given_up: asks that nobody waits for.
        hold_s: how long the worker may hold it until it has an answer.
    """

    worker: int
    number: int
    asks: tuple[int, ...]
    given_up: tuple[int, ...]
    hold_s: float


@dataclass(frozen=True, slots=True)
class Decisions:
    """What to do now: calls to make, asks whose time is over, and asks that ended too many workers."""

    exchanges: Sequence[Exchange] = ()
    expired: Sequence[int] = ()
    condemned: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class RouterStats:
    """Since the router was made, save `missed`.

    Attributes:
        asks: taken.
        moved: put to another worker because theirs was lost, not ready or failed.
        hedged: put to a further worker while another has it.
        expired: that nobody answered in time.
        condemned: given up, because worker after worker was lost with it.
        exchanges: calls made.
        missed: for each worker, the asks in a row that went elsewhere because it was silent or stuck, or expired; since it was
            last ready, and while there are asks.
    """

    asks: int = 0
    moved: int = 0
    hedged: int = 0
    expired: int = 0
    condemned: int = 0
    exchanges: int = 0
    missed: tuple[int, ...] = ()

    def __add__(self, other: "RouterStats") -> "RouterStats":
        """Of two routers together; nobody's `missed`, which are a worker's in one caller's eyes."""
        return RouterStats(
            self.asks + other.asks,
            self.moved + other.moved,
            self.hedged + other.hedged,
            self.expired + other.expired,
            self.condemned + other.condemned,
            self.exchanges + other.exchanges,
        )
