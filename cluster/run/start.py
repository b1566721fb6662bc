"""From built parts to parts that can play: engines and judges up, and after a resume the newest weights on every worker.

It builds nothing (`wiring` does) and starts no game.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ray
import structlog

from cluster.calls import ask, last_line
from cluster.observe.view import RunStats
from cluster.plan.placement import PUBLISHER
from cluster.plan.plan import Plan
from cluster.run.answers import wait_for
from cluster.run.folder import resumes_above_zero
from cluster.run.states import RunFailed
from cluster.run.watch import POLL_S, Watch, check_learners
from cluster.run.wiring import Parts
from cluster.rundir import RunDir
from protocol.roles import PLAYERS, Player

log = structlog.get_logger(__name__)


async def start_engines(parts: Parts, plan: Plan, say: Callable[[str], None]) -> None:
    """Brings up every generation and judge worker at once, while the learners start.

    Raises:
        RunFailed: one does not start, or not within its start deadline.
    """
    groups = " and ".join(parts.learners)
    say(f"starting the vLLM engines of both players and the ZeRO-3 groups of {groups}")
    generation, engine = plan.generation, plan.judge.config.engine
    playing = generation.start_deadline_s, "generation.start_deadline_s"
    players = [(role, h) for p in PLAYERS for role, h in parts.generators_by_role(p).items()]
    await asyncio.gather(
        *(_await_start(PUBLISHER, wait_for(ref), *playing) for ref in parts.registered),
        *(_start(*one, *playing) for one in players),
        *(
            _start(*one, engine.start_deadline_s, "judge.engine.start_deadline_s")
            for one in parts.judges_by_role.items()
        ),
    )


async def _start(role: str, handle: Any, limit_s: float, key: str) -> None:
    """Has a worker started; asks again if its process dies over it. `key` is where the limit is set."""
    await _await_start(role, ask(handle, "start", part=role, limit_s=limit_s), limit_s, key)


async def _await_start(role: str, started: Awaitable[Any], limit_s: float, key: str) -> None:
    """Waits until a part has started. Raises `RunFailed`, with its role and its log, if it does not, or not in time."""
    try:
        async with asyncio.timeout(limit_s):
            await started
    except ray.exceptions.RayError as e:  # first: of a start that raised TimeoutError it is a TimeoutError, too
        log.error("not started", role=role, exc_info=e)
        raise RunFailed(f"{role} did not start: {last_line(e)}; see logs/{role}.log") from None
    except TimeoutError:
        raise RunFailed(f"{role} did not start within {limit_s:.0f} s ({key}); see logs/{role}.log") from None


async def catch_up(parts: Parts, run_dir: RunDir, watch: Watch, limit_s: float) -> None:
    """After a resume the workers hold version 0; games wait for the versions that the learners push first.

    Args:
        limit_s: `run.stall_s`.

    Raises:
        RunFailed: a version reached no worker in time, or a learner group gave up.
    """
    await watch.ask_and_show(parts)
    pushes = resumes_above_zero(run_dir, watch.poll.stats.replay.versions)
    try:
        async with asyncio.timeout(limit_s):
            while not pushes <= list_served(watch.poll.stats):
                check_learners(parts)
                await watch.ask_and_show(parts)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        late = ", ".join(sorted(pushes - list_served(watch.poll.stats)))
        raise RunFailed(
            f"the resumed weights of {late} reached no worker within {limit_s:.0f} s (run.stall_s)"
        ) from None


def list_served(stats: RunStats) -> set[Player]:
    """Players whose workers all serve a version that was pushed: its newest, or (`push.to: spread`) the one that is theirs."""
    players = stats.publisher.players
    return {p for p, mine in players.items() if mine.newest > 0 and all(w.version > 0 for w in mine.workers)}
