"""The games of one run: begun when everybody can be asked, ended after the last step, and looked after in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import structlog

from cluster.run.answers import last_line, wait_for
from cluster.run.poll import Poll
from cluster.run.states import RunFailed
from cluster.run.wiring import Parts
from cluster.supervise.engine_load import report_load
from protocol.recipe import BackpressureConfig

STOP_S = 60.0  # for the replay buffer and the rollout worker to stop after the last step

log = structlog.get_logger(__name__)


class Games:
    """What the rollout worker plays; `play_games` gives one."""

    def __init__(self, parts: Parts, rollout: "asyncio.Future[Any]") -> None:
        self._parts, self._rollout = parts, rollout

    def check(self) -> None:
        """Raises `RunFailed` if the rollout worker ended by an error."""
        if self._rollout.done() and (error := self._rollout.exception()) is not None:
            raise RunFailed(f"the rollout worker ended: {last_line(error)}")

    async def stop(self, poll: Poll) -> None:
        """No more deals; games in flight are given up and counted (`stopped`). `poll` notes the judge pool's last counts."""
        try:
            async with asyncio.timeout(STOP_S):
                await wait_for(self._parts.replay.stop.remote())
                await wait_for(self._parts.rollout.stop.remote())
                poll.note_pool((await self._rollout).pool)
        except TimeoutError:
            log.warning("the rollout worker did not stop in time", limit_s=STOP_S)


@contextlib.asynccontextmanager
async def play_games(parts: Parts, backpressure: BackpressureConfig | None) -> AsyncIterator[Games]:
    """Begins to play, as many games as the engines bear while the block runs. Only `Games.stop` ends them."""
    async with report_load(parts.generators, parts.replay, backpressure):
        yield Games(parts, asyncio.ensure_future(wait_for(parts.rollout.run.remote())))
