"""Waiting for what a run's actors answer: a deadline for each, and one line that says what went wrong."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import ray
import structlog

from cluster.calls import last_line
from cluster.run.states import RunFailed
from learners.failure import node_in

ANSWER_S = 20.0  # an actor that takes longer to tell its stats is busy or restarting; its last answer stands
T = TypeVar("T")

log = structlog.get_logger(__name__)


async def wait_for(ref: Any) -> Any:
    """An object ref as a coroutine, for gather and timeout."""
    return await ref


async def answer_or(part: str, ref: Any, last: T) -> T:
    """An actor's answer, or `last` while it is busy or restarting. Raises `RunFailed` if it is dead for good.

    Args:
        part: its role.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            answer: T = await ref
            return answer
    except ray.exceptions.ActorDiedError as e:
        log.error("a part is dead", part=part, on_node=node_in(e), exc_info=e)
        raise RunFailed(describe_death(part, e)) from None
    except (TimeoutError, ray.exceptions.RayActorError) as e:
        log.warning("a part did not answer", part=part, error=type(e).__name__)
        return last


def describe_death(part: str, error: BaseException) -> str:
    """Which part died, on which node, of what, and where its log is."""
    node = node_in(error)
    where = f" on node {node}" if node else ""
    return f"{part}{where} died and is not restarted: {last_line(error)}; see logs/{part}.log"


async def answers_of(refs: Mapping[str, Any]) -> dict[str, Any]:
    """`answer_or` of several at once, by role; None for each that does not answer."""
    answers = await asyncio.gather(*(answer_or(role, ref, None) for role, ref in refs.items()))
    return dict(zip(refs, answers, strict=True))
