"""Reports of the engines' load to the replay buffer, for its backpressure (`cluster.replay.rules.backpressure`).

Every `generation.backpressure.every_s` each generation worker is asked how full its engine is, and the replay buffer gets the
answers as one report. A worker that does not answer in time, or has no engine now, is left out of that report. A report that the
replay buffer does not take is lost. Neither ends the run: whether actors live is not this module's question, and backpressure
handles missing reports.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import ray
import structlog

from cluster.replay.rules.backpressure import EngineLoad
from protocol.recipe import BackpressureConfig
from protocol.roles import Player

ANSWER_S = 2.0  # a worker that is building an engine answers nobody; the others' numbers should not get old meanwhile

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def report_load(
    generators: Mapping[Player, Sequence[Any]], replay: Any, config: BackpressureConfig | None
) -> AsyncIterator[None]:
    """Reports while the block runs, for the first time before it begins; never if `config` is None."""
    if config is None:
        yield
        return
    engines = {f"generation-{p}-{k}": handle for p, handles in generators.items() for k, handle in enumerate(handles)}
    await report_once(engines, replay)
    task = asyncio.create_task(_report_every(config.every_s, engines, replay))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()  # raises what ended it


async def report_once(engines: Mapping[str, Any], replay: Any) -> None:
    """Asks every engine and reports the answers; nothing if there is none."""
    answers = await asyncio.gather(*(_ask(handle.stats.remote()) for handle in engines.values()))
    loads = [
        EngineLoad(name, answer.occupancy.kv_usage, answer.occupancy.waiting, answer.occupancy.preemptions)
        for name, answer in zip(engines, answers, strict=True)
        if answer is not None and answer.occupancy is not None
    ]
    if loads:
        await _ask(replay.report_load.remote(loads))


async def _report_every(every_s: float, engines: Mapping[str, Any], replay: Any) -> None:
    while True:
        await asyncio.sleep(every_s)
        await report_once(engines, replay)


async def _ask(ref: Any) -> Any:
    """An actor's answer; None if there is none in time."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await ref
    except (TimeoutError, ray.exceptions.RayError) as e:
        log.debug("no answer about an engine's load", error=type(e).__name__)
        return None
