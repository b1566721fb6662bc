"""Which worker answers which ask, for generation and judge workers alike. A pure state machine: no clock, no call, no Ray.

    ask:     waiting ──► placed ──► hedged (at two or three workers) ──► answered | expired | condemned | given up
                ▲           │
                └───────────┘   its worker is gone, not ready, or failed of it
    worker:  open ◄──► closed: not ready | silent | stuck | avoided

Invariants:
- **every ask ends once**: answered, expired, condemned, or given up by its caller. One whose worker is lost waits for another;
- **no ask is put to a closed worker**, so that none queues behind a restart;
- **least loaded by questions**: an ask goes to the open worker with the fewest questions in its hands, other callers' too. What is
  placed at once may fill a worker a quarter beyond that, so that it travels in one call; and a caller that shares many workers with
  others prefers those of its own share by `HOME` questions, so that its calls are fewer and larger. Of the others it asks one a
  second how loaded they are, and takes those that have not said lately to be as loaded as these;
- **hedging**: an ask is put to another worker when its own are silent or stuck, or when its only one has given no token after
  `hedge_s` and the other has at most half the load (else an overload would double itself). At three workers at most, and not many
  asks at once, or an overload would feed on itself. Where replies are late in general, or from most workers now, silence means
  less. The first answer counts;
- **no ask takes every worker down**: one that `MAX_LOSSES` workers lost while they were at it is condemned.

`actors.pool` is its shell. It restarts nobody: what a worker misses in a row is counted here, and supervision reads it.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Set

from protocol.exchange import Answer, AskFault, NotReady, Replies, Vitals, WorkerFault
from protocol.router_state import AskState, Decisions, Exchange, RouterStats, WorkerState

PROBE_S = 1.0  # between two looks at a worker that takes no asks
HOME = 8  # questions that a worker of one's own share may be ahead of another: a few asks
HEDGES = 16  # asks that may be hedged at once, at least; a quarter of the asks if those are more
LATE_WEIGHT, LATE_FACTOR = 0.1, 4.0  # of one reply in their mean lateness; of that in the silence that is allowed
QUORUM = 3  # workers with calls out that can outvote a suspicion
HOLDERS = 3  # workers that an ask may be at
MAX_LOSSES = 4  # a prompt that ends an engine would end one after another
GUILT_S = 0.5  # a worker that is lost sooner after it was asked was lost before


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
        self._workers = [WorkerState(moved_s=now_s, away=HOME * (k % callers != mine)) for k in range(workers)]
        # Of other callers' shares; the next to be asked how loaded it is comes first.
        self._away = deque(k for k, w in enumerate(self._workers) if w.away)
        self._sounded_s = -math.inf
        self._unheard = 0  # questions that one of them is taken to have
        self._asks: dict[int, AskState] = {}
        self._waiting: dict[int, None] = {}  # asks at no worker, in their order
        self._busy: set[int] = set()  # workers to whom there may be something to say
        self._looked_s = -math.inf
        self._late_s = 0.0  # mean lateness of replies
        self._general_s = 0.0  # the silence that is allowed while replies are late from everywhere; else 0
        self._condemned: list[int] = []  # to be told
        self._taken = self._moved = self._hedged = self._expired = self._condemnations = self._calls = 0

    @property
    def look_s(self) -> float:
        """How often, at least, `decide` must be called while it is not `idle`."""
        return min(0.5, self._hedge_s / 4)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to decide: no ask, and nobody to be told that one was given up."""
        return not (self._asks or self._busy or self._condemned)

    def stats(self) -> RouterStats:
        """Counts, and what each worker misses."""
        missed = tuple(w.missed if self._asks else 0 for w in self._workers)  # who asks nothing knows nothing
        return RouterStats(
            self._taken, self._moved, self._hedged, self._expired, self._condemnations, self._calls, missed
        )

    # -- asks

    def add(
        self, ask: int, questions: int, now_s: float, limit_s: float = math.inf, absent_s: float = math.inf
    ) -> None:
        """A new ask, under a number of its own.

        Args:
            limit_s: it expires after so long, whatever happens.
            absent_s: it expires when no worker that has it was heard of for so long.
        """
        self._asks[ask] = AskState(questions, now_s + limit_s, absent_s, heard_s=now_s)
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
        if number not in w.calls and reply.vitals.ready:  # taken for lost: what the worker holds, later replies say
            return counted
        since_s, hold_s = w.calls.pop(number, (now_s, 0.0))
        late_s = min(self._hedge_s, max(0.0, now_s - since_s - hold_s))
        self._late_s += LATE_WEIGHT * (late_s - self._late_s)
        w.forget_lost_calls(number, now_s - 2 * self._hedge_s)
        self._busy.add(worker)
        w.ready = reply.vitals.ready
        if not w.ready:
            self._lose_all(worker, now_s)
            return counted
        self._note_vitals(w, reply.vitals, now_s)
        for ask in reply.begun:
            if ask in w.sent:
                self._asks[ask].begun.add(worker)
        held = set(reply.held)
        if number >= w.told:  # what was given up while the worker was taken for lost
            w.given_up += [ask for ask in held if ask not in self._asks and ask not in w.given_up]
        if not any(earlier < number for earlier in w.calls):  # whose reply may bring what is missing in this one
            self._lose(
                worker, [ask for ask, carried in w.sent.items() if 0 < carried <= number and ask not in held], now_s
            )
        for ask in w.sent:
            self._asks[ask].heard_s = now_s
        return counted

    def note_gone(self, worker: int, number: int, now_s: float) -> None:
        """An exchange failed because the worker's process is gone, or cannot be reached: its asks go to others."""
        w = self._workers[worker]
        if number not in w.calls:  # of an earlier process
            return
        w.calls.clear()  # some of them Ray may never tell of: what was sent while the process died
        w.ready = False
        self._lose_all(worker, now_s)

    # -- decisions

    def decide(self, now_s: float) -> Decisions:
        """What to do now. Call it when something was added or noted, and every `look_s`."""
        expired: list[int] = []
        if self._away:
            self._unheard = self._guess_load(now_s)
        if self._asks and now_s - self._looked_s >= self.look_s:
            self._looked_s = now_s
            self._note_lateness(now_s)
            expired = self._expire(now_s)
            self._hedge(now_s)
            self._probe(now_s)
            self._sound_out(now_s)
        self._place(now_s)
        condemned, self._condemned = self._condemned, []
        return Decisions(list(self._exchanges(now_s)), expired, condemned)

    def _place(self, now_s: float) -> None:
        if not self._waiting:
            return
        opened = self._list_open(now_s)
        if not opened:
            return
        order = [(self._rank(k, now_s), k) for k in opened]
        heapq.heapify(order)
        for ask in list(self._waiting):
            failed = self._asks[ask].failed
            worker = self._least(opened, failed, now_s) if failed else self._least_of_heap(order, now_s)
            self._put(ask, worker, now_s)
            del self._waiting[ask]

    def _least(self, workers: Iterable[int], failed: Set[int], now_s: float) -> int:
        """The least loaded, rather one that has not failed of the ask."""
        return min(workers, key=lambda k: (k in failed, self._rank(k, now_s)))

    def _least_of_heap(self, order: list[tuple[tuple[int, int], int]], now_s: float) -> int:
        """The least loaded; the same again until it is a quarter fuller than when it came first."""
        while True:
            (then, chosen), worker = order[0]
            now = self._rank(worker, now_s)
            if now == (then, chosen) or now[0] <= then + then // 4:
                return worker
            heapq.heapreplace(order, (now, worker))

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
        left = max(HEDGES, len(self._asks) // 4) - sum(len(a.at) > 1 for a in self._asks.values())
        order = sorted(self._list_open(now_s), key=lambda k: self._rank(k, now_s))
        lost = {k for k, w in enumerate(self._workers) if self._is_lost(w, now_s)}
        before_s = now_s - self._silent_s  # of an ask without a token replies tell, and those may be late
        for ask, a in self._asks.items():
            if left <= 0:
                return
            if not a.at or len(a.at) >= HOLDERS:
                continue
            late = lost.issuperset(a.at)
            if not late and (a.begun or len(a.at) > 1 or next(iter(a.at.values())) > before_s):
                continue
            other = self._choose_other(order, a, now_s)
            if other is None:
                continue
            at = list(a.at)
            if late or 2 * self._load(other, now_s) <= self._load(at[0], now_s):
                self._put(ask, other, now_s)
                order.sort(key=lambda k: self._rank(k, now_s))  # all but in order: quick
                self._hedged += 1
                left -= 1
                for worker in at if late else ():  # a full worker that works is not at fault
                    self._workers[worker].missed += 1

    def _choose_other(self, order: Iterable[int], a: AskState, now_s: float) -> int | None:
        """Of open workers, least loaded first, one that has not the ask, rather one that has not failed of it."""
        if a.failed:
            others = [k for k in order if k not in a.at]
            return self._least(others, a.failed, now_s) if others else None
        return next((k for k in order if k not in a.at), None)

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
            waits = w.calls and not w.is_silent(
                now_s, self._silent_s
            )  # a call to a process that ended may never come back
            if not w.ready and not waits and now_s - w.probed_s >= PROBE_S:
                w.probed_s = now_s
                self._busy.add(k)

    def _sound_out(self, now_s: float) -> None:
        """Asks one worker of another's share how loaded it is, so that it is known when those have room."""
        if not self._away or now_s - self._sounded_s < PROBE_S:
            return
        self._sounded_s = now_s
        w = self._workers[self._away[0]]
        if w.ready and not w.calls:
            w.probed_s = now_s
            self._busy.add(self._away[0])
        self._away.rotate(-1)

    def _exchanges(self, now_s: float) -> Iterator[Exchange]:
        for worker in sorted(self._busy):
            w = self._workers[worker]
            new = tuple(ask for ask, number in w.sent.items() if not number)
            probing = w.probed_s == now_s
            telling = w.given_up and not w.is_silent(now_s, self._silent_s)
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

    @property
    def _silent_s(self) -> float:
        """A worker holds an exchange for half of `hedge_s` at most."""
        return self._general_s or self._hedge_s + LATE_FACTOR * self._late_s

    def _note_lateness(self, now_s: float) -> None:
        """Where most of several workers owe a reply, it is not they who are slow: the caller is, or what is between."""
        calling = [w for w in self._workers if w.calls]
        late = sum(w.owes_reply(now_s, self._hedge_s / 2) for w in calling)
        general = len(calling) >= QUORUM and 2 * late > len(calling)
        self._general_s = (1.0 + LATE_FACTOR) * self._hedge_s if general else 0.0

    def _rank(self, worker: int, now_s: float) -> tuple[int, int]:
        return self._workers[worker].rank(now_s, self._unheard)

    def _load(self, worker: int, now_s: float) -> int:
        return self._workers[worker].load(now_s, self._unheard)

    def _guess_load(self, now_s: float) -> int:
        """Questions that a worker of another's share has that has not said lately: the mean of those that have, else of ours."""
        heard = [w.load(now_s) for w in self._workers if w.away and w.is_fresh(now_s)]
        known = heard or [w.load(now_s) for w in self._workers if not w.away]
        return sum(known) // len(known)

    def _is_lost(self, w: WorkerState, now_s: float) -> bool:
        """Whether what it has must not wait for it."""
        return w.is_silent(now_s, self._silent_s) or w.is_stuck(now_s, self._hedge_s)

    def _list_open(self, now_s: float) -> list[int]:
        silent_s = self._silent_s
        return [k for k, w in enumerate(self._workers) if w.is_open(now_s, silent_s, self._hedge_s)]

    def _note_vitals(self, w: WorkerState, vitals: Vitals, now_s: float) -> None:
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
            w.avoid(now_s)
            asks = [answer.id] if answer.id in w.sent else []
            self._lose(worker, asks, now_s, GUILT_S if isinstance(answer.error, NotReady) else 0.0)
            return False
        w.missed = 0
        if answer.error is None or isinstance(answer.error, AskFault):
            w.failures, w.avoid_until_s = 0, 0.0
        else:  # the least loaded worker is the one that fails at once: it would draw every ask
            w.avoid(now_s)
        self._drop(worker, answer.id)
        self._end(answer.id)
        return True

    def _lose(self, worker: int, asks: Iterable[int], now_s: float, guilt_s: float = GUILT_S) -> None:
        """The worker has these asks no more: each waits for another, unless it is at a second one, or is condemned."""
        for ask in asks:
            a = self._asks[ask]
            a.losses += now_s - a.at[worker] >= guilt_s
            self._drop(worker, ask)
            if a.losses >= MAX_LOSSES:
                self._condemned.append(ask)
                self._condemnations += 1
                self._end(ask)
            elif not a.at:
                self._waiting[ask] = None
                self._moved += 1

    def _lose_all(self, worker: int, now_s: float) -> None:
        w = self._workers[worker]
        w.given_up.clear()
        w.others = w.missed = 0  # the next one's are its own
        self._lose(worker, list(w.sent), now_s)

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
