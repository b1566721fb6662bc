"""Waiting for what a run's actors answer: a deadline for each, and one line that says what went wrong."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import ray
import structlog

from cluster.calls import find_mistake
from cluster.run.states import RunFailed
from learners.failure import node_in
from protocol.errors import sum_up, trail

ANSWER_S = 20.0  # an actor that takes longer to tell its stats is busy or restarting; its last answer stands
T = TypeVar("T")

log = structlog.get_logger(__name__)


async def wait_for(ref: Any) -> Any:
    """An object ref as a coroutine, for gather and timeout."""
    return await ref


async def answer_or(part: str, ref: Any, last: T) -> T:
    """An actor's answer, or `last` while it is busy or restarting.

    Args:
        part: its role.

    Raises:
        RunFailed: it is dead for good.
        UserError: it is, over a mistake of the user's.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            answer: T = await ref
            return answer
    except ray.exceptions.ActorDiedError as e:
        log.error("a part is dead", part=part, on_node=node_in(e), trail=trail(e))
        if (mistake := find_mistake(e)) is not None:
            raise mistake from None
        raise RunFailed(describe_death(part, e)) from None
    except (TimeoutError, ray.exceptions.RayActorError) as e:
        log.warning("a part did not answer", part=part, error=type(e).__name__)
        return last


def describe_death(part: str, error: BaseException) -> str:
    """Which part died, on which node, of what, and where its log is."""
    node = node_in(error)
    where = f" on node {node}" if node else ""
    return f"{part}{where} died and is not restarted: {sum_up(error)}; see logs/{part}.log"


async def answers_of(refs: Mapping[str, Any]) -> dict[str, Any]:
    """`answer_or` of several at once, by role; None for each that does not answer."""
    answers = await asyncio.gather(*(answer_or(role, ref, None) for role, ref in refs.items()))
    return dict(zip(refs, answers, strict=True))
