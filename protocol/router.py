"""Which worker answers which ask, for generation and judge workers alike. A pure state machine: no clock, no call, no Ray.

    ask:     waiting ──► placed ──► hedged (at two workers) ──► answered | expired | given up
                ▲           │
                └───────────┘   its worker is gone, not ready, or failed of it
    worker:  open ◄──► closed: not ready | silent | stuck | avoided

Invariants:
- **every ask ends once**: answered, expired, or given up by its caller. One whose worker is lost waits for another worker;
- **no ask is put to a closed worker**, so that none queues behind a restart;
- **least loaded by questions**: an ask goes to the open worker with the fewest questions in its hands, other callers' too. What is
  placed at once may fill a worker a quarter beyond that, so that it travels in one call; and a caller that shares many workers with
  others prefers those of its own share by `HOME` questions, so that its calls are fewer and larger;
- **hedging**: an ask is put to a second worker when its own is silent or stuck, or when it has no token after `hedge_s` and the
  other worker has at most half the load (else an overload would double itself). Never to a third, and not many at once. Where
  replies are late in general, silence means less. The first answer counts.

`actors.pool` is its shell. It restarts nobody: what a worker misses in a row is counted here, and supervision reads it.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from protocol.exchange import Answer, AskFault, Replies, Vitals, WorkerFault

AVOID_S = 1.0  # after a first failure; twice as long after each further one in a row
AVOID_MAX_S = 60.0
PROBE_S = 1.0  # between two looks at a worker that takes no asks
HOME = 8  # questions that a worker of one's own share may be ahead of another: a few asks
FRESH_S = 10.0  # what a worker said of other callers' questions is believed for so long
HEDGES = 16  # asks hedged at one look, at least; a tenth of the asks if those are more
LATE_WEIGHT, LATE_FACTOR = 0.1, 4.0  # of one reply in their mean lateness; of that in the silence that is allowed


@dataclass(slots=True)
class _Ask:
    questions: int
    deadline_s: float
    absent_s: float
    heard_s: float  # when a worker that has it was last heard of
    at: dict[int, float] = field(default_factory=dict)  # worker -> since when
    begun: set[int] = field(default_factory=set)  # workers that have begun to answer
    failed: set[int] = field(default_factory=set)  # workers that failed of it: asked again only where no other is open


@dataclass(slots=True)
class _Worker:
    moved_s: float  # when its engine last moved, or had nothing to do
    ready: bool = True
    steps: int | None = None
    away: int = 0  # `HOME` for a worker outside one's own share
    others: int = 0  # questions of other callers
    others_s: float = -math.inf  # when that was said
    own: int = 0  # questions of this one
    sent: dict[int, int] = field(default_factory=dict)  # ask -> number of the exchange that carried it; 0: none yet
    given_up: list[int] = field(default_factory=list)  # to be told
    calls: dict[int, tuple[float, float]] = field(
        default_factory=dict
    )  # that are out, the oldest first: since when, its hold
    avoid_until_s: float = 0.0
    failures: int = 0  # in a row
    missed: int = 0  # asks in a row that went elsewhere or expired
    chosen: int = 0  # how often, so that idle workers take turns
    probed_s: float = -math.inf
    told: int = 0  # the last exchange that carried something given up

    def load(self, now_s: float) -> int:
        return self.own + (self.others if now_s - self.others_s < FRESH_S else 0)


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
    """What to do now: calls to make, and asks whose time is over."""

    exchanges: Sequence[Exchange] = ()
    expired: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class RouterStats:
    """Since the router was made, save `missed`.

    Attributes:
        asks: taken.
        moved: put to another worker because theirs was lost, not ready or failed.
        hedged: put to a second worker.
        expired: that nobody answered in time.
        exchanges: calls made.
        missed: for each worker, the asks in a row that it did not answer before they went elsewhere or expired; since it was
            last ready, and while there are asks.
    """

    asks: int = 0
    moved: int = 0
    hedged: int = 0
    expired: int = 0
    exchanges: int = 0
    missed: tuple[int, ...] = ()


class Router:
    """See the module's docstring. Times are the caller's clock, seconds.

    Args:
        workers: how many; they are known by their numbers.
        hedge_s: `router.hedge_s`.
        now_s: the time.
        share: (k, n): this is the k-th of n callers of the same workers, and prefers each n-th worker, from the k-th on.
    """

    def __init__(self, workers: int, hedge_s: float, now_s: float, share: tuple[int, int] = (0, 1)) -> None:
        if workers < 1:
            raise ValueError("a router needs at least one worker")
        self._hedge_s = hedge_s
        mine, callers = share if share[1] <= workers else (0, 1)
        self._workers = [_Worker(moved_s=now_s, away=HOME * (k % callers != mine)) for k in range(workers)]
        self._asks: dict[int, _Ask] = {}
        self._waiting: dict[int, None] = {}  # asks at no worker, in their order
        self._busy: set[int] = set()  # workers to whom there may be something to say
        self._looked_s = -math.inf
        self._late_s = 0.0  # mean lateness of replies
        self._taken = self._moved = self._hedged = self._expired = self._calls = 0

    @property
    def look_s(self) -> float:
        """How often, at least, `decide` must be called while it is not `idle`."""
        return min(0.5, self._hedge_s / 4)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to decide: no ask, and nobody to be told that one was given up."""
        return not self._asks and not self._busy

    def stats(self) -> RouterStats:
        """Counts, and what each worker misses."""
        missed = tuple(w.missed if self._asks else 0 for w in self._workers)  # who asks nothing knows nothing
        return RouterStats(self._taken, self._moved, self._hedged, self._expired, self._calls, missed)

    # -- asks

    def add(
        self, ask: int, questions: int, now_s: float, limit_s: float = math.inf, absent_s: float = math.inf
    ) -> None:
        """A new ask, under a number of its own.

        Args:
            limit_s: it expires after so long, whatever happens.
            absent_s: it expires when no worker that has it was heard of for so long.
        """
        self._asks[ask] = _Ask(questions, now_s + limit_s, absent_s, heard_s=now_s)
        self._waiting[ask] = None
        self._taken += 1

    def give_up(self, ask: int) -> None:
        """Nobody waits for it any more, and its workers will be told. Nothing happens if it has ended."""
        if ask in self._asks:
            self._end(ask)

    # -- what workers say

    def note_reply(self, worker: int, number: int, reply: Replies, now_s: float) -> list[Answer]:
        """An exchange came back. Gives the answers that count: those of asks that have not ended."""
        w = self._workers[worker]
        counted = [answer for answer in reply.answers if self._note_answer(worker, answer, now_s)]
        if (
            number not in w.calls and reply.vitals.ready
        ):  # it was taken for lost: what it holds is known from later ones
            return counted
        since_s, hold_s = w.calls.pop(number, (now_s, 0.0))
        late_s = min(self._hedge_s, max(0.0, now_s - since_s - hold_s))
        self._late_s += LATE_WEIGHT * (late_s - self._late_s)
        for earlier, (then_s, _) in list(
            w.calls.items()
        ):  # it answers, but not to this: the call, or its reply, was lost
            if earlier < number and now_s - then_s >= 2 * self._hedge_s:
                del w.calls[earlier]
        self._busy.add(worker)
        w.ready = reply.vitals.ready
        if not w.ready:
            self._lose_all(worker)
            return counted
        self._note_vitals(w, reply.vitals, now_s)
        for ask in reply.begun:
            if ask in w.sent:
                self._asks[ask].begun.add(worker)
        held = set(reply.held)
        if number >= w.told:  # what was given up while the worker was taken for lost
            w.given_up += [ask for ask in held if ask not in self._asks and ask not in w.given_up]
        if not any(earlier < number for earlier in w.calls):  # whose reply may bring what is missing in this one
            self._lose(worker, [ask for ask, carried in w.sent.items() if 0 < carried <= number and ask not in held])
        for ask in w.sent:
            self._asks[ask].heard_s = now_s
        return counted

    def note_gone(self, worker: int, number: int) -> None:
        """An exchange failed because the worker's process is gone, or cannot be reached: its asks go to others."""
        w = self._workers[worker]
        if number not in w.calls:  # of an earlier process
            return
        w.calls.clear()  # some of them Ray may never tell of: what was sent while the process died
        w.ready = False
        self._lose_all(worker)

    # -- decisions

    def decide(self, now_s: float) -> Decisions:
        """What to do now. Call it when something was added or noted, and every `look_s`."""
        expired: list[int] = []
        if self._asks and now_s - self._looked_s >= self.look_s:
            self._looked_s = now_s
            expired = self._expire(now_s)
            self._hedge(now_s)
            self._probe(now_s)
        self._place(now_s)
        return Decisions(list(self._exchanges(now_s)), expired)

    def _place(self, now_s: float) -> None:
        if not self._waiting:
            return
        opened = [k for k, w in enumerate(self._workers) if self._is_open(w, now_s)]
        if not opened:
            return
        order = [(self._rank(k, now_s), k) for k in opened]
        heapq.heapify(order)
        for ask in list(self._waiting):
            failed = self._asks[ask].failed
            if failed:
                worker = min(
                    opened, key=lambda k: (k in failed, self._rank(k, now_s))
                )  # rather one that has not failed of it
            else:
                worker = self._fullest_of_least(order, now_s)
            self._put(ask, worker, now_s)
            del self._waiting[ask]

    def _fullest_of_least(self, order: list[tuple[tuple[int, int], int]], now_s: float) -> int:
        """The worker that heads the heap `order`, until it is a quarter fuller than the next one."""
        while True:
            rank, worker = order[0]
            now = self._rank(worker, now_s)
            if now == rank or len(order) == 1:
                return worker
            if now[0] <= rank[0] + rank[0] // 4:
                return worker
            heapq.heapreplace(order, (now, worker))

    def _rank(self, worker: int, now_s: float) -> tuple[int, int]:
        w = self._workers[worker]
        return w.load(now_s) + w.away, w.chosen

    def _put(self, ask: int, worker: int, now_s: float) -> None:
        w, a = self._workers[worker], self._asks[ask]
        if not w.sent:
            w.moved_s = now_s
        w.sent[ask] = 0
        w.own += a.questions
        w.chosen += 1
        a.at[worker] = now_s
        self._busy.add(worker)

    def _hedge(self, now_s: float) -> None:
        late: set[int] = set()
        left = max(HEDGES, len(self._asks) // 10)
        closed = {k for k, w in enumerate(self._workers) if not self._is_open(w, now_s)}
        for ask, a in self._asks.items():
            if len(a.at) != 1 or not left:
                continue
            ((worker, since_s),) = a.at.items()
            w = self._workers[worker]
            lost = worker in closed and (self._is_silent(w, now_s) or self._is_stuck(w, now_s))
            if not lost and (worker in a.begun or now_s - since_s < self._hedge_s):
                continue
            others = [k for k in range(len(self._workers)) if k != worker and k not in closed]
            if not others:
                continue
            other = min(others, key=lambda k: (k in a.failed, self._rank(k, now_s)))
            if lost or 2 * self._workers[other].load(now_s) <= w.load(now_s):
                self._put(ask, other, now_s)
                self._hedged += 1
                w.missed += 1
                left -= 1
                late.add(worker)
        for worker in late:
            self._avoid(self._workers[worker], now_s)

    def _expire(self, now_s: float) -> list[int]:
        over = [k for k, a in self._asks.items() if now_s >= a.deadline_s or now_s - a.heard_s >= a.absent_s]
        for ask in over:
            for worker in self._asks[ask].at:
                self._workers[worker].missed += 1
            self._end(ask)
        self._expired += len(over)
        return over

    def _probe(self, now_s: float) -> None:
        """Workers that are not ready are asked whether they are, as long as somebody could use them."""
        for k, w in enumerate(self._workers):
            waits = w.calls and not self._is_silent(w, now_s)  # a call to a process that ended may never come back
            if not w.ready and not waits and now_s - w.probed_s >= PROBE_S:
                w.probed_s = now_s
                self._busy.add(k)

    def _exchanges(self, now_s: float) -> Iterator[Exchange]:
        for worker in sorted(self._busy):
            w = self._workers[worker]
            new = tuple(ask for ask, number in w.sent.items() if not number)
            probing = w.probed_s == now_s
            telling = w.given_up and not self._is_silent(w, now_s)
            if not (new or telling or probing or (w.sent and not w.calls)):
                continue
            self._calls += 1
            for ask in new:
                w.sent[ask] = self._calls
            given_up, w.given_up = tuple(w.given_up), []
            if given_up:
                w.told = self._calls
            # A reply is a sign of the worker: it must come before an ask expires for want of one.
            signs_s = [self._hedge_s, *(self._asks[ask].absent_s for ask in w.sent)]
            hold_s = min(signs_s) / 2 if w.sent else 0.0
            w.calls[self._calls] = (now_s, hold_s)
            yield Exchange(worker, self._calls, new, given_up, hold_s)
        self._busy.clear()

    # -- states

    def _is_open(self, w: _Worker, now_s: float) -> bool:
        return w.ready and w.avoid_until_s <= now_s and not self._is_silent(w, now_s) and not self._is_stuck(w, now_s)

    def _is_silent(self, w: _Worker, now_s: float) -> bool:
        """It holds an exchange for half of `hedge_s` at most."""
        if not w.calls:
            return False
        since_s, _ = next(iter(w.calls.values()))
        return now_s - since_s >= self._hedge_s + LATE_FACTOR * self._late_s

    def _is_stuck(self, w: _Worker, now_s: float) -> bool:
        return bool(w.sent) and w.steps is not None and now_s - w.moved_s >= self._hedge_s

    def _note_vitals(self, w: _Worker, vitals: Vitals, now_s: float) -> None:
        if vitals.steps is None or vitals.steps != w.steps or vitals.paused:
            w.moved_s = now_s
        w.steps = vitals.steps
        w.others_s = now_s
        w.others = max(0, vitals.running - sum(self._asks[ask].questions for ask, n in w.sent.items() if n))

    def _note_answer(self, worker: int, answer: Answer, now_s: float) -> bool:
        w = self._workers[worker]
        if answer.id not in self._asks:
            return False
        if isinstance(answer.error, WorkerFault):
            self._asks[answer.id].failed.add(worker)
            self._avoid(w, now_s)
            self._lose(worker, [answer.id] if answer.id in w.sent else [])
            return False
        w.missed = 0
        if answer.error is None or isinstance(answer.error, AskFault):
            w.failures, w.avoid_until_s = 0, 0.0
        else:  # the least loaded worker is the one that fails at once: it would draw every ask
            self._avoid(w, now_s)
        self._drop(worker, answer.id)
        self._end(answer.id)
        return True

    def _avoid(self, w: _Worker, now_s: float) -> None:
        if w.avoid_until_s <= now_s:  # what fails together counts as one failure
            w.avoid_until_s = now_s + min(AVOID_MAX_S, AVOID_S * 2**w.failures)
            w.failures += 1

    def _lose(self, worker: int, asks: Iterable[int]) -> None:
        """The worker has these asks no more: each waits for another, unless it is at a second one."""
        for ask in asks:
            self._drop(worker, ask)
            if not self._asks[ask].at:
                self._waiting[ask] = None
                self._moved += 1

    def _lose_all(self, worker: int) -> None:
        w = self._workers[worker]
        w.given_up.clear()
        w.others = w.missed = 0  # the next one's are its own
        self._lose(worker, list(w.sent))

    def _drop(self, worker: int, ask: int) -> None:
        w, a = self._workers[worker], self._asks[ask]
        if w.sent.pop(ask, None) is not None:
            w.own -= a.questions
        a.at.pop(worker, None)
        a.begun.discard(worker)

    def _end(self, ask: int) -> None:
        """The ask is over: the workers that are still at it are told."""
        a = self._asks[ask]
        for worker in list(a.at):
            w = self._workers[worker]
            if w.sent[ask]:
                w.given_up.append(ask)
                self._busy.add(worker)
            self._drop(worker, ask)
        self._waiting.pop(ask, None)
        del self._asks[ask]
