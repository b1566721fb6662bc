"""The order of one run's events: build, start, measure, play and learn, measure again, take down, sum up.

Each event is a module's of its own here; the driver says only what follows what. It owns no state that a resumed run would miss:
that is in the replay buffer's segments, the learners' checkpoints and the run directory.
"""

import time
from typing import Any

from cluster.exits import RunEnd
from cluster.observe.history import History
from cluster.observe.progress import Progress
from cluster.plan.plan import Plan
from cluster.run.games import play_games
from cluster.run.lessons import Lessons
from cluster.run.measurements import Measurements
from cluster.run.poll import Poll, merge_missed
from cluster.run.start import catch_up, start_engines
from cluster.run.summary import RunOutcome, summarize
from cluster.run.supervision import RunSupervisor
from cluster.run.watch import Watch
from cluster.run.wiring import build, take_down
from cluster.supervise.supervisor import supervise
from protocol.files import write_json


class Run:
    """Drives one run. `summary` always says how far it came.

    Args:
        group: the placement group of its parts.
        started_at: Unix seconds.
    """

    def __init__(self, plan: Plan, group: Any, progress: Progress, started_at: float) -> None:
        self._plan, self._group, self._progress, self._started_at = plan, group, progress, started_at
        self._history = History(plan.run_dir)
        self._lessons = Lessons(plan, self._history)
        self._poll = Poll(self._history)
        self._measurements = Measurements(plan, progress)

    async def drive(self) -> None:
        """Runs to the last step and the last measurement.

        Raises:
            RunFailed: a learner group gave up, an engine did not start, nothing moved for `run.stall_s`, or a player learned
                nothing.
        """
        plan, poll, measurements = self._plan, self._poll, self._measurements
        parts = build(plan, self._group)
        try:
            await start_engines(parts, plan, self._progress.say)
            supervisor = RunSupervisor(plan, parts, lambda: merge_missed([poll.missed(), measurements.missed()]))
            async with supervise(supervisor):
                await measurements.start(parts)
                watch = Watch(plan, poll, self._history, self._lessons, measurements, self._progress, supervisor)
                if plan.resumed:
                    await catch_up(parts, plan.run_dir, watch, plan.stall_s)
                self._progress.say("playing; the learners join as soon as they are up")
                async with play_games(parts, plan.generation.backpressure) as games:
                    await watch.until_learned(parts, games)
                    await games.stop(poll)
                await measurements.end()
                await poll.ask_workers(parts)
                await watch.ask_and_show(parts)
        finally:
            measurements.close()
            try:
                await poll.close(parts)
            finally:
                take_down(parts)

    def summary(self, end: RunEnd, note: str = "") -> dict[str, Any]:
        """Writes `summary.json` and returns it. Of a resumed run, versions and seconds of the earlier parts are added."""
        now, first = time.time(), self._history.first_step_at
        outcome = RunOutcome(
            end=end,
            note=note or self._lessons.remark,
            barren=self._lessons.barren,
            wall_s=now - self._started_at,
            first_step_s=None if first is None else first - self._started_at,
            stats=self._poll.stats,
            heldout=self._measurements.heldout,
            promotion=self._measurements.decision,
            probe=self._measurements.latest_probe,
        )
        run_dir = self._plan.run_dir
        value = summarize(self._plan, outcome, run_dir.read_summary() if self._plan.resumed else {})
        write_json(run_dir.summary, value)
        return value
