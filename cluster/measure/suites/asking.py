"""Asks the models: what the journal lacks, a bounded number at once, every answer journalled as it comes.

A failure that is the prompt's own is an answer of its kind, kept with its reason; others are left for the next time, and too many
of them end it (`breaker`). It judges nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import structlog

from cluster.inputs.suites.suite import Item, Suite
from cluster.inputs.targets import Manner, Target
from cluster.measure.suites.breaker import Breaker
from cluster.measure.suites.journal import Journal
from judge.errors import JudgeUnavailable
from protocol.errors import UserError, trail
from protocol.formats import FORMATS
from protocol.interfaces import Generator
from protocol.prompts import defender_messages
from protocol.randomness import derive_seed
from protocol.types import Ask, Completion

ANSWER = "answer"  # the journal's kind of record: {"text", "finish"}, or {"failure"} with the reason
NO_ROOM = "no room in the context"

log = structlog.get_logger(__name__)
T = TypeVar("T")
Tell = Callable[[int, int], None]  # (done, wanted), after each


class GaveUp(Exception):
    """A model or a judge answers no more. The message is why, in a few words."""


async def run_at_once(jobs: Iterable[T], at_once: int, do: Callable[[T], Awaitable[None]]) -> None:
    """Does all jobs, `at_once` at any moment.

    Raises:
        GaveUp, UserError: the first that a job raised; the others are cancelled.
        ExceptionGroup: anything else that jobs raised.
    """
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await do(job)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except* (GaveUp, UserError) as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def list_missing(
    journal: Journal, target: Target, suites: Sequence[Suite], samples: int
) -> list[tuple[Suite, Item, int]]:
    """The attempts that a model has not been asked for, in the order of the suites."""
    return [
        (suite, item, sample)
        for suite in suites
        for item in suite.items
        for sample in range(samples)
        if journal.get(ANSWER, target.name, suite.name, item.id, sample) is None
    ]


async def ask_target(
    generator: Generator,
    target: Target,
    missing: Sequence[tuple[Suite, Item, int]],
    manner: Manner,
    at_once: int,
    journal: Journal,
    tell: Tell,
) -> Counter[str]:
    """Asks one model for attempts.

    Returns:
        Failures that were left for the next time, by reason.

    Raises:
        GaveUp: it refuses everything, or failed too often in a row.
        UserError: the journal cannot be written.
    """
    breaker, left, done = Breaker(), Counter[str](), 0

    async def one(job: tuple[Suite, Item, int]) -> None:
        nonlocal done
        suite, item, sample = job
        seed = derive_seed(manner.seed, "evaluate", suite.name, item.id, sample)
        messages = defender_messages(item.prompt, manner.prompts, manner.format)
        ask = Ask(f"evaluate-{suite.name}-{item.id}-{sample}", messages, (seed,), manner.sampling)
        record = await _answer(generator, ask, target, manner, breaker, left)
        if record is not None:
            journal.put(record, ANSWER, target.name, suite.name, item.id, sample)
        done += 1
        tell(done, len(missing))

    await run_at_once(missing, at_once, one)
    return left


async def _answer(
    generator: Generator, ask: Ask, target: Target, manner: Manner, breaker: Breaker, left: Counter[str]
) -> dict[str, str] | None:
    # An endpoint's attempts have deadlines of their own, and wait for its limits without one.
    limit_s = None if target.api is not None else manner.deadline_s
    try:
        async with asyncio.timeout(limit_s):
            [completion] = await generator.generate(ask)
    except TimeoutError:
        reason, permanent = f"no answer in {manner.deadline_s:g} s", False
    except JudgeUnavailable as error:
        reason, permanent = error.reason, error.permanent
    except Exception as error:  # noqa: BLE001  # the other answers must not be lost; its message may quote the prompt
        log.error("an answer failed", model=target.name, trail=trail(error))
        reason, permanent = f"failed: {type(error).__name__}", False
    else:
        breaker.note_answer()
        return _record(completion, manner)
    match breaker.note_failure(reason, permanent):
        case "keep":
            return {"failure": reason}
        case "leave":
            left[reason] += 1
            return None
        case "stop":
            raise GaveUp(reason)


def _record(completion: Completion, manner: Manner) -> dict[str, str]:
    if completion.finish == "no_room":
        return {"failure": NO_ROOM}  # what was cut off might have been the answer
    visible = FORMATS[manner.format].visible(completion.text)
    # A response in a broken format may still be an answer, and is judged as it is, as in a run's own measurements.
    text = completion.text if visible is None else visible
    return {"text": text.encode("utf-8", "replace").decode(), "finish": completion.finish}
