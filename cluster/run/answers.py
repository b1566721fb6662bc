"""Waiting for what a run's actors answer: a deadline for each, and one line that says what went wrong."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import ray
import structlog

from cluster.calls import find_mistake
from cluster.run.states import RunFailed
from protocol.errors import sum_up, trail

ANSWER_S = 20.0  # an actor that takes longer to tell its stats is busy or restarting; its last answer stands
T = TypeVar("T")

log = structlog.get_logger(__name__)


async def wait_for(ref: Any) -> Any:
    """An object ref as a coroutine, for gather and timeout."""
    return await ref


async def answer_or(ref: Any, last: T) -> T:
    """An actor's answer, or `last` while it is busy or restarting.

    Raises:
        RunFailed: it is dead for good.
        UserError: it is, over a mistake of the user's.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            answer: T = await ref
            return answer
    except ray.exceptions.ActorDiedError as e:
        log.error("an actor is dead", trail=trail(e))
        if (mistake := find_mistake(e)) is not None:
            raise mistake from None
        raise RunFailed(f"an actor died and is not restarted: {sum_up(e)}") from None
    except (TimeoutError, ray.exceptions.RayActorError) as e:
        log.warning("an actor did not answer", error=type(e).__name__)
        return last


async def answers_of(refs: Sequence[Any]) -> list[Any]:
    """`answer_or` of several at once; None for each that does not answer."""
    return list(await asyncio.gather(*(answer_or(ref, None) for ref in refs)))
