"""Watches a run from its first game to the last learner step: asks, shows, and ends it when a part gave up or nothing moves.

It restarts nothing (Ray, Ray Train, the publisher and supervision do). What a standstill is, `supervise.watchdog` decides.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import ray
import structlog

from cluster.calls import find_mistake
from cluster.measure.background import name_versions
from cluster.observe.history import History
from cluster.observe.moment import Newest
from cluster.observe.outlook import Horizon
from cluster.observe.progress import Progress
from cluster.observe.run_metrics import RunMetrics
from cluster.observe.sinks.sinks import Sinks
from cluster.observe.view import RunView, snapshot_of, view_of
from cluster.plan.plan import Plan
from cluster.run.games import Games
from cluster.run.lessons import Lessons
from cluster.run.measurements import Measurements
from cluster.run.node_watch import NodeWatch
from cluster.run.poll import Poll
from cluster.run.stall import dump_stall
from cluster.run.states import RunFailed
from cluster.run.supervision import RunSupervisor
from cluster.run.wiring import Parts
from cluster.supervise.watchdog import Watchdog
from learners.failure import GroupFailed
from learners.spec import LearnerResult
from protocol.errors import sum_up, trail
from protocol.roles import Player

POLL_S = 1.0
COUNTS_EVERY_S = 10.0  # engines and judges are asked what they counted this often
HISTORY_EVERY_S = 15.0
ABANDONED_ROUNDS = 3  # this many times game.in_flight given up in a row, and none finished: the games cannot be played

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """Where each moment of a run is shown."""

    progress: Progress
    metrics: RunMetrics
    newest: Newest
    sinks: Sinks


class Watch:
    """See the module's docstring.

    Args:
        poll: asks the parts.
        history: is written now and then.
        lessons: end it if it teaches nothing.
        measurements: are told how far the run is, for the judge's probe and the held-out scores.
        supervisor: knows which workers are fit.
        shown: where each moment is shown.

    Attributes:
        remark: what should be known of a run that took every step; "" if there is nothing.
    """

    def __init__(
        self,
        plan: Plan,
        poll: Poll,
        history: History,
        lessons: Lessons,
        measurements: Measurements,
        shown: Shown,
        supervisor: RunSupervisor,
    ) -> None:
        self._plan, self._history, self._measurements, self._shown = plan, history, measurements, shown
        self.poll, self._lessons, self._supervisor = poll, lessons, supervisor
        self._nodes = NodeWatch(plan.run_dir, lambda text: shown.progress.say(text))
        self._horizon = Horizon(plan)
        self.remark = ""
        self._watchdog = Watchdog(plan.stall_s, ABANDONED_ROUNDS * plan.rules.game.in_flight)

    async def ask_and_show(self, parts: Parts, last: bool = False) -> RunView:
        """Asks replay buffer, publisher and rollout workers, and shows what they say. `last`: nothing comes after it.

        Raises:
            RunFailed: one of them is dead, or a player learned nothing for too many steps.
        """
        reports = await self.poll.ask(parts)
        fitness = self._supervisor.fitness()
        self.poll.note_fitness(fitness)
        probe = self._measurements.probe(self._step(parts))
        outlook = self._horizon.look(self.poll.stats, reports, time.monotonic(), time.time())
        view = view_of(self._plan, self.poll.stats, probe, self._measurements.points, outlook)
        pools: dict[str, tuple[int, int]] = dict(fitness.generators.items()) | {"judge": fitness.judges}
        self._shown.metrics.update(view, pools, self._supervisor.states())
        self._shown.progress.show(view)
        self._shown.newest.note(self.poll.stats)
        self._shown.sinks.show(view, reports, self._shown.newest.samples, last)
        self._lessons.check(reports, self.poll.stats.replay)
        return view

    async def until_learned(self, parts: Parts, games: Games) -> None:
        """Returns when every learner group is done.

        Raises:
            RunFailed: a learner group gave up, the games ended, an actor is dead, nothing moved for `run.stall_s`, or a player
                learned nothing.
        """
        with contextlib.ExitStack() as first_step:
            first_step.enter_context(
                self._shown.progress.wait("the learners' first step", "they load and compile before it")
            )
            await self._until_learned(parts, games, first_step)
        if late := check_learners(parts):
            names = " and ".join(f"the {player}" for player in late)
            self.remark = (
                f"the last version of {names} did not reach every worker in time: exports are of it, the last measurement may "
                "partly be of older ones"
            )
        self._lessons.conclude(self.poll.stats.replay)

    async def _until_learned(self, parts: Parts, games: Games, first_step: contextlib.ExitStack) -> None:
        """`first_step` is closed as soon as there is one."""
        next_counts = next_history = 0.0
        waiting = set(parts.learners.values())
        while waiting:
            _, pending = await asyncio.to_thread(ray.wait, list(waiting), num_returns=len(waiting), timeout=POLL_S)
            waiting = set(pending)
            check_learners(parts)
            games.check()
            now = time.monotonic()
            if now >= next_counts:
                next_counts = now + COUNTS_EVERY_S
                await asyncio.to_thread(self._nodes.look)
                self.poll.begin_ask_workers(parts)
            view = await self.ask_and_show(parts)
            # Not while a resumed run catches up: its workers serve the starting weights then.
            self._measurements.measure_if_due(self._step(parts), name_versions(self.poll.stats.publisher))
            if any(view.players[p].step > 0 for p in parts.learners):
                first_step.close()
            if now >= next_history:
                next_history = now + HISTORY_EVERY_S
                self._history.write()
                self._shown.newest.write()
            found = self._watchdog.check(snapshot_of(self._plan, view, self.poll.stats, now))
            if found is not None:
                raise RunFailed(found.why + (await self.keep_stall(parts) if found.still else ""))

    async def keep_stall(self, parts: Parts) -> str:
        """Keeps the stacks of a run in which nothing moves; gives the end of the sentence that says where they are."""
        try:
            folder = await dump_stall(self._plan.run_dir, parts.actors)
        except Exception as e:  # noqa: BLE001  # whatever went wrong, why the run ends must be told
            log.error("no stacks", trail=trail(e))
            return "; its stacks could not be had"
        return f"; stacks and GPU use are in {folder.name}/"

    def _step(self, parts: Parts) -> int:
        """Learner steps of the player furthest behind."""
        players = self.poll.stats.publisher.players
        return min(players[p].step for p in parts.learners)


def check_learners(parts: Parts) -> tuple[Player, ...]:
    """Looks how the learner groups that are done ended.

    Returns:
        Players whose last version did not reach every worker in time: all was learned, and what is exported is right.

    Raises:
        UserError: one ended over a mistake of the user's.
        RunFailed: one gave up.
    """
    late: list[Player] = []
    for player, ref in parts.learners.items():
        done, _ = ray.wait([ref], timeout=0)
        if done:
            try:
                result: LearnerResult = ray.get(done[0])
            except ray.exceptions.RayError as e:
                if (mistake := find_mistake(e)) is not None:
                    raise mistake from None
                cause = getattr(e, "cause", None)
                if not isinstance(cause, GroupFailed):
                    log.error("a learner group gave up", player=player, trail=trail(e))
                    raise RunFailed(f"the {player}'s learner group gave up: {sum_up(e)}") from None
                for failure in cause.failures:
                    place = {"part": failure.role, "of_rank": failure.rank, "on_node": failure.node}
                    log.error("a rank failed", player=player, **place, exception=failure.traceback)
                raise RunFailed(f"the {player}'s learner group gave up: {cause}") from None
            if not result.delivered and not result.stopped:
                late.append(player)
    return tuple(late)
