"""The worker's end of `exchange`: runs each ask as a task of its own, and keeps its answer until its caller comes for it.

Invariants:
- every ask that was taken ends in one answer, unless its caller gave it up or fell silent;
- an ask that nobody waits for is cancelled: given up by its caller, or, at the next exchange of any caller, because its own was not
  heard of for `GONE_S`;
- a worker that is not ready takes no ask, and answers at once;
- at most `WAITING` exchanges of a caller wait: a newer one lets the oldest go.

It knows neither engine nor judge nor Ray, opens nothing, and belongs to one event loop.
"""

import asyncio
import copy
import pickle
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from protocol.busy import BusyClock
from protocol.errors import trail
from protocol.exchange import Answer, Batch, Posted, Replies, Vitals
from protocol.pace import Pace

GATHER_S, GATHER_MAX_S = 0.01, 0.5
# Of an answer's time: answers that come so close together travel in one reply. The more callers share them, the fewer are each
# one's, and the longer is worth waiting.
GATHER_SHARE, GATHER_CALLERS = 0.02, 3
GONE_S = 60.0  # a caller that waits for anything asks every few seconds
WAITING = 2

Run = Callable[[Any, Callable[[], None]], Awaitable[Any]]


@dataclass(slots=True)
class _Box:
    """One caller's asks."""

    running: dict[int, tuple[asyncio.Task[None], int]] = field(default_factory=dict)  # task and questions
    answers: list[Answer] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)  # exchanges, the oldest first
    gathering: bool = False  # one of them is about to take the answers
    heard_s: float = 0.0


class Inbox:
    """See the module's docstring.

    Args:
        run: answers one ask's body; calls its second argument once, when the answer has begun.
        vitals: how the worker is; `running` is filled in here.
        clock: gives seconds.
    """

    def __init__(self, run: Run, vitals: Callable[[], Vitals], clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._vitals, self._clock = run, vitals, clock
        self._boxes: dict[str, _Box] = {}
        self._pace = Pace(GATHER_S, GATHER_MAX_S, GATHER_SHARE)
        self._busy = BusyClock(clock)
        self.running = 0  # questions of all callers
        self.forgotten = 0  # asks cancelled because their caller fell silent

    @property
    def busy_s(self) -> float:
        """Seconds since it was made with at least one question in hand, whoever asked it."""
        return self._busy.seconds

    def vitals(self) -> Vitals:
        """How the worker is."""
        return replace(self._vitals(), running=self.running)

    async def exchange(self, caller: str, batch: Batch, wait_s: float) -> Replies:
        """See `protocol.exchange`.

        Args:
            caller: names one process's client; another process, or a client made anew, has another name.
            wait_s: how long it may wait for the first answer.
        """
        self._forget_silent()
        vitals = self.vitals()
        if not vitals.ready:
            return self._part(caller, vitals)
        box = self._boxes.setdefault(caller, _Box())
        box.heard_s = self._clock()
        for ask in batch.given_up:
            self._cancel(box, ask)
        for posted in batch.asks:
            if posted.id in box.running:
                continue  # its caller took this worker for lost
            task = asyncio.create_task(self._answer(box, posted))
            box.running[posted.id] = (task, posted.questions)
            self._count(posted.questions)
        await self._wait(box, wait_s)
        box.heard_s = self._clock()
        vitals = self.vitals()
        if not vitals.ready and self._boxes.get(caller) is box:
            return self._part(caller, vitals)
        answers, box.answers = tuple(box.answers), []
        begun, box.begun = tuple(box.begun), []
        return Replies(vitals, answers, begun, tuple(box.running))

    def _part(self, caller: str, vitals: Vitals) -> Replies:
        """The last reply of a worker that is not ready: what it has answered. The caller asks others from now on."""
        box = self._boxes.get(caller)
        answers = () if box is None else tuple(box.answers)
        self._forget(caller)
        return Replies(vitals, answers)

    async def _wait(self, box: _Box, wait_s: float) -> None:
        """Until the box has answers that no other exchange is about to take."""
        if not box.answers or box.gathering:
            still = [turn for turn in box.waiting if not turn.done()]
            if len(still) >= WAITING:  # who was let go may not have left yet
                _let_go(still[0])
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            box.waiting.append(turn)
            try:
                await asyncio.wait_for(turn, wait_s)
            except TimeoutError:
                return
            finally:
                box.waiting.remove(turn)
        if box.answers and not box.gathering:
            box.gathering = True
            try:
                await asyncio.sleep(self._pace.wait_s(longer=min(GATHER_CALLERS, len(self._boxes))))
            finally:
                box.gathering = False

    async def _answer(self, box: _Box, posted: Posted) -> None:
        begun, began = False, self._clock()

        def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                box.begun.append(posted.id)

        try:
            answer = Answer(posted.id, await self._run(posted.body, begin))
            self._pace.note(self._clock() - began)
        except Exception as error:  # noqa: BLE001  # it is the caller's
            answer = Answer(posted.id, error=make_portable(error))
        finally:
            self._release(box, posted.id, asyncio.current_task())
        box.answers.append(answer)
        if box.waiting and not box.gathering:
            _let_go(box.waiting[0])

    def _forget_silent(self) -> None:
        limit_s = self._clock() - GONE_S
        for caller in [c for c, box in self._boxes.items() if box.heard_s < limit_s and not box.waiting]:
            self.forgotten += self._forget(caller)

    def _forget(self, caller: str) -> int:
        """Cancels what a caller asked. Gives how many asks those are."""
        box = self._boxes.pop(caller, None)
        if box is None:
            return 0
        box.answers = []  # delivered, or nobody's
        for turn in box.waiting:
            _let_go(turn)
        return sum([self._cancel(box, ask) for ask in list(box.running)])

    def _cancel(self, box: _Box, ask: int) -> bool:
        """Cancels an ask and counts it no more. False if there is none. Its task may not have begun: it may never learn of it."""
        if ask not in box.running:
            return False
        task, _ = box.running[ask]
        task.cancel()
        self._release(box, ask, task)
        return True

    def _release(self, box: _Box, ask: int, task: "asyncio.Task[None] | None") -> None:
        if ask in box.running and box.running[ask][0] is task:
            self._count(-box.running.pop(ask)[1])

    def _count(self, questions: int) -> None:
        self.running += questions
        self._busy.note(self.running)


def _let_go(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)


def make_portable(error: Exception) -> Exception:
    """The error as it can travel, with the lines that it passed as a note; of one that cannot be pickled, its name."""
    error.add_note(f"in the worker: {', '.join(trail(error))}")
    error.__traceback__ = None
    try:
        pickle.dumps(error)
        copy.copy(error)  # rebuilds it as the other side will
    except Exception:  # noqa: BLE001  # whatever its class does in pickling
        return RuntimeError(f"{type(error).__name__}, which cannot be pickled")
    return error
