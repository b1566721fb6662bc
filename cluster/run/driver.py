"""The order of one run's events: build, start, measure, play and learn, measure again, take down, sum up.

Each event is a module's of its own here; the driver says only what follows what. It owns no state that a resumed run would miss:
that is in the replay buffer's segments, the learners' checkpoints and the run directory.
"""

import time
from typing import Any

from cluster.inputs.find import Inputs
from cluster.observe.history import History
from cluster.observe.progress import Progress
from cluster.run.games import playing
from cluster.run.measurements import Measurements
from cluster.run.poll import Poll
from cluster.run.start import catch_up, start_engines
from cluster.run.states import RunEnd
from cluster.run.summary import Outcome, summarize
from cluster.run.watch import Watch
from cluster.run.wiring import build, take_down
from cluster.rundir import RunDir
from protocol.files import write_json
from protocol.recipe import Recipe


class Run:
    """Drives one run. `summary` always says how far it came.

    Args:
        group: the placement group of its parts.
        started_at: Unix seconds.
        resumed: whether the run directory is that of an earlier part.
    """

    def __init__(
        self,
        recipe: Recipe,
        inputs: Inputs,
        run_dir: RunDir,
        group: Any,
        progress: Progress,
        started_at: float,
        resumed: bool,
    ) -> None:
        self.recipe, self.inputs, self.run_dir, self.progress = recipe, inputs, run_dir, progress
        self._group, self._started_at, self._resumed = group, started_at, resumed
        self._history = History(run_dir)
        self._poll = Poll(self._history)
        self._measurements = Measurements(recipe, inputs, run_dir, progress)

    async def drive(self) -> None:
        """Runs to the last step and the last measurement.

        Raises:
            RunFailed: a learner group gave up, an engine did not start, or nothing moved for `run.stall_s`.
        """
        recipe, poll, measurements = self.recipe, self._poll, self._measurements
        parts = build(recipe, self.inputs, self.run_dir, self._group)
        try:
            await start_engines(parts, recipe, self.progress.say)
            await measurements.start(parts)
            watch = Watch(recipe, poll, self._history, measurements, self.progress)
            if self._resumed:
                await catch_up(parts, self.run_dir, watch, recipe.run.stall_s)
            self.progress.say("playing; the learners join as soon as they are up")
            async with playing(parts, recipe) as games:
                await watch.until_learned(parts, games)
                await games.stop(poll)
            await measurements.end()
            await poll.ask_workers(parts)
            await watch.look(parts)
        finally:
            measurements.close()
            try:
                await poll.close(parts)
            finally:
                take_down(parts)

    def summary(self, end: RunEnd, note: str = "") -> dict[str, Any]:
        """Writes `summary.json` and returns it. Of a resumed run, versions and seconds of the earlier parts are added."""
        now, first = time.time(), self._history.first_step_at
        outcome = Outcome(
            end=end,
            note=note,
            wall_s=now - self._started_at,
            first_step_s=None if first is None else first - self._started_at,
            stats=self._poll.stats,
            heldout=self._measurements.heldout,
            promotion=self._measurements.decision,
            probe=self._measurements.latest_probe,
        )
        value = summarize(self.recipe, outcome, self.run_dir.read_summary() if self._resumed else {})
        write_json(self.run_dir.summary, value)
        return value
