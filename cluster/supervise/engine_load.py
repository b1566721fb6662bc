"""The driver's looks at the engines, for the replay buffer's backpressure (`cluster.replay.rules.backpressure`).

Every `generation.backpressure.every_s` each generation worker is asked how full its engine is, and whoever answered is told to the
replay buffer. A worker that does not answer in time, or has no engine now, is left out of that round; a round that the replay
buffer does not take is lost. Neither ends the run: whether actors live is not this module's question, and backpressure knows what
to do when nobody looks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import ray
import structlog

from cluster.replay.rules.backpressure import Look
from protocol.recipe import BackpressureConfig
from protocol.roles import Player

ANSWER_S = 2.0  # a worker that is building an engine answers nobody; the others' numbers should not get old meanwhile

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def looking(
    generators: Mapping[Player, Sequence[Any]], replay: Any, config: BackpressureConfig | None
) -> AsyncIterator[None]:
    """Looks at the engines while the block runs, for the first time before it begins; never if `config` is None."""
    if config is None:
        yield
        return
    engines = {f"generation-{p}-{k}": handle for p, handles in generators.items() for k, handle in enumerate(handles)}
    await look(engines, replay)
    task = asyncio.create_task(_keep_looking(engines, replay, config.every_s))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()  # raises what ended it


async def look(engines: Mapping[str, Any], replay: Any) -> None:
    """One round."""
    answers = await asyncio.gather(*(_answer(handle.stats.remote()) for handle in engines.values()))
    looks = [
        Look(name, answer.occupancy.kv_usage, answer.occupancy.waiting, answer.occupancy.preemptions)
        for name, answer in zip(engines, answers, strict=True)
        if answer is not None and answer.occupancy is not None
    ]
    if looks:
        await _answer(replay.pressure.remote(looks))


async def _keep_looking(engines: Mapping[str, Any], replay: Any, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await look(engines, replay)


async def _answer(ref: Any) -> Any:
    """An actor's answer; None if there is none in time."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await ref
    except (TimeoutError, ray.exceptions.RayError) as e:
        log.debug("no answer to a look", error=type(e).__name__)
        return None
