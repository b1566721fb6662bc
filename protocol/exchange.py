"""What travels between whoever asks and a worker that answers: many asks in one call, and the answers of several in its reply.

    caller ── Batch (new asks, asks given up) ──► worker
    caller ◄── Replies (answers, who has begun, how the worker is) ── worker

A worker's `exchange(caller, batch, wait_s)` takes the batch and returns when answers of that caller are there, at the latest after
`wait_s`. So one call carries every ask of a tick to one worker, and several answers back. `inbox` is the worker's end, `router`
decides for the caller. Frozen, and nothing here waits.
"""

from dataclasses import dataclass
from typing import Any


class WorkerFault(Exception):
    """What only this worker failed of: another one may answer the same ask."""


class AskFault(Exception):
    """What the ask itself is at fault of: any worker would say the same."""


class WorkersLost(AskFault):
    """Worker after worker was lost while it had this ask, which may be why."""


class NotReady(WorkerFault):
    """The worker was asked before it was started, or after it lost its engine."""

    reason = "not_ready"


@dataclass(frozen=True, slots=True)
class Posted:
    """One ask on its way: `id` is the caller's, `questions` its weight in the worker's load, `body` what is asked."""

    id: int
    questions: int
    body: Any


@dataclass(frozen=True, slots=True)
class Batch:
    """What a caller tells one worker: new asks, and the ids of earlier ones that nobody waits for any more."""

    asks: tuple[Posted, ...] = ()
    given_up: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a worker is, as it sees itself.

    Attributes:
        ready: it takes asks. A worker that has no engine is not.
        starting: its engine is being built.
        running: questions in its hands, of all callers.
        steps: of its engine so far: stands still when the engine does. None: it has no engine that could.
        paused: generation stands still on purpose, for new weights.
    """

    ready: bool = False
    starting: bool = False
    running: int = 0
    steps: int | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One ask's end: what came of it, or the error it ended by."""

    id: int
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Replies:
    """What a worker tells one caller.

    Attributes:
        vitals: now. If it is not ready, it holds no ask of the caller, neither of this batch nor an earlier one.
        answers: since the last reply.
        begun: asks whose answer has begun (a first token), since the last reply.
        held: the caller's asks that it is at. Of those that were sent before, any other was lost.
    """

    vitals: Vitals
    answers: tuple[Answer, ...] = ()
    begun: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
