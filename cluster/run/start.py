"""From built parts to parts that can play: engines and judges up, and on every worker the weights that the game begins with,
after a resume or a warm start.

It builds nothing (`wiring` does) and starts no game.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

import ray
import structlog

from cluster.calls import ask, find_mistake
from cluster.observe.facts import describe_warm
from cluster.observe.progress import Progress
from cluster.observe.view import RunStats
from cluster.plan.placement import PUBLISHER
from cluster.plan.plan import Plan
from cluster.run.answers import wait_for
from cluster.run.folder import pushes_first
from cluster.run.states import RunFailed
from cluster.run.watch import POLL_S, Watch, check_learners
from cluster.run.wiring import Parts
from learners.failure import node_in
from protocol.errors import last_line, trail
from protocol.roles import PLAYERS, Player

log = structlog.get_logger(__name__)


async def start_engines(parts: Parts, plan: Plan, progress: Progress) -> None:
    """Brings up every generation and judge worker at once, while the learners start.

    Raises:
        RunFailed: one does not start, or not within its start deadline.
    """
    groups = " and ".join(parts.learners)
    progress.say(f"starting the vLLM engines of both players and the ZeRO-3 groups of {groups}")
    generation, engine = plan.generation, plan.judge.config.engine
    playing = generation.start_deadline_s, "generation.start_deadline_s"
    judging = engine.start_deadline_s, "judge.engine.start_deadline_s"
    engines = [_start(role, h, *playing) for p in PLAYERS for role, h in parts.generators_by_role(p).items()]
    judges = [_start(role, h, *judging) for role, h in parts.judges_by_role.items()]
    kinds = {"engines": engines, "judge workers": judges}
    serve = dict.fromkeys(kinds, 0)
    usual = f"about a minute for two small ones on two cores; given up after {playing[0]:.0f} s"
    with progress.wait("the players' engines and the judges", usual) as note:

        def tell() -> None:
            note(", ".join(f"{serve[kind]} of {len(starts)} {kind} serve" for kind, starts in kinds.items() if starts))

        async def count(kind: str, started: Awaitable[None]) -> None:
            await started
            serve[kind] += 1
            tell()

        tell()
        await asyncio.gather(
            *(_await_start(PUBLISHER, wait_for(ref), *playing) for ref in parts.registered),
            *(count(kind, one) for kind, starts in kinds.items() for one in starts),
        )


async def _start(role: str, handle: Any, limit_s: float, key: str) -> None:
    """Has a worker started; asks again if its process dies over it. `key` is where the limit is set."""
    await _await_start(role, ask(handle, "start", part=role, limit_s=limit_s), limit_s, key)


async def _await_start(role: str, started: Awaitable[Any], limit_s: float, key: str) -> None:
    """Waits until a part has started.

    Raises:
        RunFailed: it does not, or not in time; with its role and its log.
        UserError: it does not, over a mistake of the user's.
    """
    try:
        async with asyncio.timeout(limit_s):
            await started
    except ray.exceptions.RayError as e:  # first: of a start that raised TimeoutError it is a TimeoutError, too
        # With its message, which a person needs here: what starts has seen no text of a game yet.
        log.error("not started", part=role, error=last_line(e), trail=trail(e))
        if (mistake := find_mistake(e)) is not None:
            raise mistake from None
        where = f" on node {node}" if (node := node_in(e)) else ""
        raise RunFailed(f"{role}{where} did not start: {last_line(e)}; see logs/{role}.log") from None
    except TimeoutError:
        raise RunFailed(f"{role} did not start within {limit_s:.0f} s ({key}); see logs/{role}.log") from None


async def catch_up(parts: Parts, plan: Plan, watch: Watch, progress: Progress) -> None:
    """The workers hold version 0: games wait for the versions that learners push first, after a resume and after a warm start.

    Raises:
        RunFailed: a version reached no worker within `run.stall_s` of the last sign of its learner, or a learner group gave up.
    """
    await watch.ask_and_show(parts)
    pushes, limit_s = pushes_first(plan.run_dir, watch.poll.stats.replay.versions, plan.warm), plan.stall_s
    if not pushes:
        return
    clock, at = asyncio.get_running_loop().time, _warm_steps(watch.poll.stats)
    try:
        async with asyncio.timeout(limit_s) as deadline:
            with progress.wait("the first versions", _usual(plan)) as note:
                while not pushes <= list_served(watch.poll.stats):
                    check_learners(parts)
                    await watch.ask_and_show(parts)
                    warm = {p: watch.poll.stats.publisher.players[p].warm for p in plan.warm}
                    note(", ".join(f"{p} {describe_warm(now)}" for p, now in warm.items()))
                    if (steps := _warm_steps(watch.poll.stats)) != at:
                        at = steps
                        deadline.reschedule(clock() + limit_s)
                    await asyncio.sleep(POLL_S)
    except TimeoutError:
        if pushes <= list_served(watch.poll.stats):
            return  # it was served at the last look
        late = ", ".join(sorted(pushes - list_served(watch.poll.stats)))
        kept = await watch.keep_stall(parts)
        raise RunFailed(
            f"the first weights of {late} reached no worker, and no learner moved, within {limit_s:.0f} s (run.stall_s){kept}"
        ) from None


def _warm_steps(stats: RunStats) -> dict[Player, int]:
    return {p: mine.warm.done for p, mine in stats.publisher.players.items()}


def _usual(plan: Plan) -> str:
    return "after the learners' warm start" if plan.warm else "the learners load and push them"


def list_served(stats: RunStats) -> set[Player]:
    """Players whose workers all serve a version that was pushed: its newest, or (`push.to: spread`) the one that is theirs."""
    players = stats.publisher.players
    return {p for p, mine in players.items() if mine.newest > 0 and all(w.version > 0 for w in mine.workers)}
