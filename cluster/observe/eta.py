"""How long a run's learners still take, from the pace of their recent steps. Pure.

It speaks of the last learner step: what is measured and exported after it is not in it.
"""

from collections import deque
from collections.abc import Collection, Iterable
from statistics import median

from cluster.observe.words import duration
from cluster.publish.stats import StepReport
from protocol.roles import Player

RECENT = 20  # steps whose pace counts: a pace of an hour ago says little, that of one step nothing
ENOUGH = 3  # step durations before which nothing is said


class Pace:
    """The recent steps of a run's learners. A median, because a checkpoint or a restart makes single steps long.

    Args:
        trained: the players that learn.
        steps: that each of them is to take.
        turns: they take turns, so that their times add up; else the slower one counts.
    """

    def __init__(self, trained: Collection[Player], steps: int, turns: bool) -> None:
        self._steps, self._turns = steps, turns
        self._done: dict[Player, int] = {}
        self._times: dict[Player, float] = {}
        self._durations: dict[Player, deque[float]] = {p: deque(maxlen=RECENT) for p in trained}

    def note(self, reports: Iterable[StepReport]) -> None:
        """New reports, each player's in the order of its steps. After a step that is taken again the pace goes on."""
        for report in reports:
            if report.player not in self._durations:
                continue
            if report.step == self._done.get(report.player, report.step) + 1:
                self._durations[report.player].append(report.time_s - self._times[report.player])
            self._done[report.player], self._times[report.player] = report.step, report.time_s

    def seconds_left(self, now_s: float) -> float | None:
        """Until the last step; None while a player that has steps to take has taken too few to tell.

        Args:
            now_s: Unix seconds.
        """
        left = []
        for player, durations in self._durations.items():
            steps = self._steps - self._done.get(player, 0)
            if steps <= 0:
                continue
            if len(durations) < ENOUGH:
                return None
            pace = median(durations)
            # The step under way has begun; one that is late is expected any moment.
            left.append(steps * pace - min(pace, max(0.0, now_s - self._times[player])))
        return sum(left) if self._turns else max(left, default=0.0)


def describe_left(seconds: float | None) -> str:
    """In words; empty where nothing is known."""
    if seconds is None:
        return ""
    return "nearly done" if seconds < 1 else f"about {duration(seconds)} left"
