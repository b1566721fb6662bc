"""The order of one run's events: build, start, measure, play and learn, measure again, take down, sum up.

Each event is a module's of its own here; the driver says only what follows what. It owns no state that a resumed run would miss:
that is in the replay buffer's segments, the learners' checkpoints and the run directory.
"""

import asyncio
import time
from typing import Any

from cluster.exits import RunEnd
from cluster.measure.background import name_versions
from cluster.observe.history import History
from cluster.observe.kept import Kept
from cluster.observe.moment import Newest
from cluster.observe.progress import Progress
from cluster.observe.run_metrics import RunMetrics
from cluster.observe.sinks.sinks import FLUSH_S, Sinks
from cluster.plan.plan import Plan
from cluster.replay.read.games import write_games
from cluster.run.games import play_games
from cluster.run.lessons import Lessons
from cluster.run.measurements import Measurements
from cluster.run.poll import Poll, merge_missed
from cluster.run.start import catch_up, start_engines
from cluster.run.stopping import save_learners
from cluster.run.summary import RunOutcome, summarize
from cluster.run.supervision import RunSupervisor
from cluster.run.watch import Shown, Watch
from cluster.run.wiring import build, take_down
from cluster.supervise.supervisor import supervise
from protocol.files import write_json


class Run:
    """Drives one run. `summary` always says how far it came.

    Args:
        group: the placement group of its parts.
        started_at: Unix seconds.
        kept: what this process's meter is told, too.
    """

    def __init__(self, plan: Plan, group: Any, progress: Progress, started_at: float, kept: Kept) -> None:
        self._plan, self._group, self._progress, self._started_at = plan, group, progress, started_at
        self._history = History(plan.run_dir)
        self._lessons = Lessons(plan, self._history)
        self._poll = Poll(self._history)
        self._measurements = Measurements(plan, progress, self._history)
        self._remark = ""
        self._metrics = RunMetrics(plan.run_dir.path)
        self._newest = Newest(plan, kept)
        self._sinks = Sinks(plan, progress.say, [point.occasion for point in self._measurements.points])

    async def drive(self) -> None:
        """Runs to the last step and the last measurement.

        Raises:
            RunFailed: a learner group gave up, an engine did not start, nothing moved for `run.stall_s`, or a player learned
                nothing.
        """
        plan, poll, measurements = self._plan, self._poll, self._measurements
        self._metrics.enter("starting")
        parts = build(plan, self._group)
        try:
            await start_engines(parts, plan, self._progress)
            supervisor = RunSupervisor(plan, parts, lambda: merge_missed([poll.missed(), measurements.missed()]))
            async with supervise(supervisor):
                shown = Shown(self._progress, self._metrics, self._newest, self._sinks)
                watch = Watch(plan, poll, self._history, self._lessons, measurements, shown, supervisor)
                if plan.resumed or plan.warm:
                    await catch_up(parts, plan, watch, self._progress)
                self._metrics.enter("measuring")
                await measurements.start(parts, name_versions(poll.stats.publisher))
                self._progress.say("playing; the learners join as soon as they are up")
                self._metrics.enter("playing")
                async with play_games(parts, plan.generation.backpressure) as games:
                    await watch.until_learned(parts, games)
                    self._remark = watch.remark
                    await games.stop(poll)
                self._metrics.enter("measuring")
                await measurements.end(name_versions(poll.stats.publisher))
                self._metrics.enter("ending")
                await poll.ask_workers(parts)
                await watch.ask_and_show(parts, last=True)
                await asyncio.to_thread(self._write_games)
        except BaseException as e:
            if isinstance(e, asyncio.CancelledError | KeyboardInterrupt):
                self._metrics.enter("ending")  # the user ended it: no alert is to miss it
            steps = {player: mine.step for player, mine in poll.stats.publisher.players.items()}
            await save_learners(parts, steps, plan.grace_s, self._progress)
            raise
        finally:
            measurements.close()
            try:
                self._sinks.add_steps(await poll.close(parts))
                self._newest.note(poll.stats)
                self._newest.write()
            finally:
                take_down(parts)

    def _write_games(self) -> None:
        """`games.md`, where the recipe asks for it."""
        plan = self._plan
        if plan.games_to_read and (n := write_games(plan.run_dir, plan.inputs.train, plan.games_to_read)):
            self._progress.say(f"{n} games to read: {plan.run_dir.games}")

    def summary(self, end: RunEnd, note: str = "") -> dict[str, Any]:
        """Closes the sinks, writes `summary.json` and returns it. Of a resumed run, what earlier parts counted is added."""
        with self._progress.wait("the sinks to take the last records", f"given up after {FLUSH_S:.0f} s"):
            sinks = self._sinks.close(end.word)
        now, first = time.time(), self._history.first_step_at
        outcome = RunOutcome(
            end=end,
            note=note or "; ".join(filter(None, (self._lessons.remark, self._remark))),
            barren=self._lessons.barren,
            wall_s=now - self._started_at,
            first_step_s=None if first is None else first - self._started_at,
            stats=self._poll.stats,
            heldout=self._measurements.heldout,
            points=self._measurements.points,
            skipped=self._measurements.skipped,
            promotion=self._measurements.decision,
            probe=self._measurements.latest_probe,
            sinks=sinks,
        )
        run_dir = self._plan.run_dir
        value = summarize(self._plan, outcome, run_dir.read_summary() if self._plan.resumed else {})
        write_json(run_dir.summary, value)
        return value
