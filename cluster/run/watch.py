"""Watches a run from its first game to the last learner step: asks, shows, and ends it when a part gave up or nothing moves.

It restarts nothing (Ray, Ray Train, the publisher and supervision do). What a standstill is, `supervise.watchdog` decides.
"""

import asyncio
import time

import ray
import structlog

from cluster.calls import last_line
from cluster.observe.history import History
from cluster.observe.metrics import Metrics
from cluster.observe.progress import Progress
from cluster.observe.view import RunView, snapshot_of, view_of
from cluster.plan.plan import Plan
from cluster.run.games import Games
from cluster.run.lessons import Lessons
from cluster.run.measurements import Measurements
from cluster.run.poll import Poll
from cluster.run.states import RunFailed
from cluster.run.supervision import RunSupervisor
from cluster.run.wiring import Parts
from cluster.supervise.watchdog import Watchdog
from learners.spec import LearnerResult

POLL_S = 1.0
COUNTS_EVERY_S = 10.0  # engines and judges are asked what they counted this often
HISTORY_EVERY_S = 15.0
ABANDONED_ROUNDS = 3  # this many times game.in_flight given up in a row, and none finished: the games cannot be played

log = structlog.get_logger(__name__)


class Watch:
    """See the module's docstring.

    Args:
        poll: asks the parts.
        history: is written now and then.
        lessons: end it if it teaches nothing.
        measurements: are told how far the run is, for the judge's probe.
        supervisor: knows which workers are fit.
        progress: shows each moment.
    """

    def __init__(
        self,
        plan: Plan,
        poll: Poll,
        history: History,
        lessons: Lessons,
        measurements: Measurements,
        progress: Progress,
        supervisor: RunSupervisor,
    ) -> None:
        self._plan, self._history, self._measurements, self._progress = plan, history, measurements, progress
        self.poll, self._lessons, self._supervisor = poll, lessons, supervisor
        self._metrics = Metrics(plan.name)
        self._watchdog = Watchdog(plan.stall_s, ABANDONED_ROUNDS * plan.rules.game.in_flight)

    async def ask_and_show(self, parts: Parts) -> RunView:
        """Asks replay buffer, publisher and rollout workers, and shows what they say.

        Raises:
            RunFailed: one of them is dead, or a player learned nothing for too many steps.
        """
        reports = await self.poll.ask(parts)
        await self.poll.ask_rollouts(parts)
        self.poll.note_fitness(self._supervisor.fitness())
        players = self.poll.stats.publisher.players
        probe = self._measurements.probe(min(players[p].step for p in parts.learners))
        view = view_of(self._plan, self.poll.stats, probe)
        self._metrics.update(view)
        self._progress.show(view)
        self._lessons.check(reports, self.poll.stats.replay)
        return view

    async def until_learned(self, parts: Parts, games: Games) -> None:
        """Returns when every learner group is done.

        Raises:
            RunFailed: a learner group gave up, the games ended, an actor is dead, nothing moved for `run.stall_s`, or a player
                learned nothing.
        """
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
                await self.poll.ask_workers(parts)
            view = await self.ask_and_show(parts)
            if now >= next_history:
                next_history = now + HISTORY_EVERY_S
                self._history.write()
            stalled = self._watchdog.check(snapshot_of(self._plan, view, self.poll.stats, now))
            if stalled is not None:
                raise RunFailed(stalled)
        self._lessons.conclude(self.poll.stats.replay)


def check_learners(parts: Parts) -> None:
    """Raises `RunFailed` if a learner group gave up, or ended with a version that its workers do not serve."""
    for player, ref in parts.learners.items():
        done, _ = ray.wait([ref], timeout=0)
        if done:
            try:
                result: LearnerResult = ray.get(done[0])
            except ray.exceptions.RayError as e:
                log.error("a learner group gave up", player=player, exc_info=e)
                raise RunFailed(f"the {player}'s learner group gave up: {last_line(e)}") from None
            if not result.delivered:
                raise RunFailed(f"the {player}'s last version did not reach its workers; what is exported is newer")
