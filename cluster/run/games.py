"""The games of one run: begun when everybody can be asked, ended after the last step, and looked after in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog

from cluster.plan.placement import rollout_role
from cluster.run.answers import wait_for
from cluster.run.poll import Poll
from cluster.run.states import RunFailed
from cluster.run.wiring import Parts
from cluster.supervise.engine_load import report_load
from protocol.errors import sum_up
from protocol.recipe import BackpressureConfig

STOP_S = 60.0  # for the replay buffer and the rollout workers to stop after the last step

log = structlog.get_logger(__name__)


class Games:
    """What the rollout workers play; `play_games` gives one."""

    def __init__(self, parts: Parts, playing: Sequence["asyncio.Future[Any]"]) -> None:
        self._parts, self._playing = parts, playing

    def check(self) -> None:
        """Raises `RunFailed` if a rollout worker ended by an error."""
        for k, playing in enumerate(self._playing):
            if playing.done() and (error := playing.exception()) is not None:
                raise RunFailed(f"{rollout_role(k)} ended: {sum_up(error)}; see logs/{rollout_role(k)}.log")

    async def stop(self, poll: Poll) -> None:
        """No more deals; games in flight are given up and counted (`stopped`). `poll` notes what the workers counted last."""
        try:
            async with asyncio.timeout(STOP_S):
                await wait_for(self._parts.replay.stop.remote())
                await asyncio.gather(*(wait_for(worker.stop.remote()) for worker in self._parts.rollouts))
                poll.note_rollouts(await asyncio.gather(*self._playing))
        except TimeoutError:
            log.warning("a rollout worker did not stop in time", limit_s=STOP_S)


@contextlib.asynccontextmanager
async def play_games(parts: Parts, backpressure: BackpressureConfig | None) -> AsyncIterator[Games]:
    """Begins to play, as many games as the engines bear while the block runs. Only `Games.stop` ends them."""
    async with report_load(parts.generators, parts.replay, backpressure):
        yield Games(parts, [asyncio.ensure_future(wait_for(worker.run.remote())) for worker in parts.rollouts])
