"""Who learns nothing because its gradient is not finite: players whose steps were skipped so many times in a row.

DeepSpeed does not apply such a gradient: weights and optimizer stay as they are, and one such step costs a batch. Many in a row are
a learner whose weights or losses are broken: the run would go on to its end and export what it began with.

A pure fold over the learners' step reports. A step without a row to learn from has no gradient and says nothing either way. A
report of a step that was reported before is of a learner that went back, and begins a new row.
"""

from collections.abc import Collection, Iterable

from cluster.publish.stats import StepReport
from protocol.roles import Player


class SkippedSteps:
    """See the module's docstring.

    Args:
        limit: `run.skipped_steps`; None: no row is ever too long.
        players: those that are trained.
    """

    def __init__(self, limit: int | None, players: Collection[Player]) -> None:
        self._limit = limit
        self._in_a_row = dict.fromkeys(players, 0)
        self._step = dict.fromkeys(players, 0)

    def note(self, reports: Iterable[StepReport]) -> tuple[Player, ...]:
        """Takes reports in their order. Gives the players that reached the limit."""
        reached: list[Player] = []
        for report in reports:
            player, metrics = report.player, report.metrics
            if report.step <= self._step[player]:
                self._in_a_row[player] = 0
            self._step[player] = report.step
            if metrics["items"] > 0:
                self._in_a_row[player] = self._in_a_row[player] + 1 if metrics.get("skipped") else 0
            if self._limit is not None and self._in_a_row[player] >= self._limit and player not in reached:
                reached.append(player)
        return tuple(reached)
