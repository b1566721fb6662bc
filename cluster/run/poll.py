"""Asks a run's parts for their statistics. Where a part does not answer, its last answer stands.

It shows nothing and judges nothing; the learners' reports, which come with the answers, go to the history.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from actors.generation import GenerationStats
from cluster.observe.history import History
from cluster.observe.view import RunStats
from cluster.publish.stats import StepReport
from cluster.run.answers import answer_or, answers_of
from cluster.run.states import RunFailed
from cluster.run.wiring import Parts, RolloutWorkerStats
from judge.stats import JudgeStats, PoolStats, add_judges
from protocol.roles import PLAYERS, Player

log = structlog.get_logger(__name__)


class Poll:
    """The statistics of one run; `stats` is the newest of each part.

    Args:
        history: where the learners' reports go.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.stats = RunStats()

    async def ask(self, parts: Parts) -> list[StepReport]:
        """Asks replay buffer and publisher, and gives the learners' new reports. Raises `RunFailed` if one of them is dead."""
        replay = await answer_or(parts.replay.stats.remote(), self.stats.replay)
        self.stats = replace(self.stats, replay=replay)
        publisher = await answer_or(parts.publisher.stats.remote(), self.stats.publisher)
        self.stats = replace(self.stats, publisher=publisher)
        reports: list[StepReport] = await answer_or(parts.publisher.drain_metrics.remote(), [])
        self._history.add(reports)
        return reports

    async def ask_workers(self, parts: Parts) -> None:
        """Counts who answers of the generation and judge workers, and what they counted. Raises `RunFailed` if one is dead."""
        of_player: dict[Player, Sequence[GenerationStats | None]] = {
            p: await answers_of([h.stats.remote() for h in parts.generators[p]]) for p in PLAYERS
        }
        judges: Sequence[JudgeStats | None] = await answers_of([h.stats.remote() for h in parts.judges])
        rollout: RolloutWorkerStats | None = await answer_or(parts.rollout.stats.remote(), None)
        self.stats = replace(
            self.stats,
            tokens=sum(a.tokens for answers in of_player.values() for a in answers if a is not None),
            healthy_generators={p: _healthy(answers) for p, answers in of_player.items()},
            judges=add_judges(a for a in judges if a is not None),
            healthy_judges=_healthy(judges),
            pool=self.stats.pool if rollout is None else rollout.pool,
        )

    def note_pool(self, pool: PoolStats) -> None:
        """What the rollout worker's judge pool counted in the end."""
        self.stats = replace(self.stats, pool=pool)

    async def close(self, parts: Parts) -> None:
        """Takes what the learners reported since the last ask, which a run that is cut short would lose, and writes the history."""
        try:
            self._history.add(await answer_or(parts.publisher.drain_metrics.remote(), []))
        except RunFailed:
            log.warning("the last reports are lost with the publisher")
        self._history.write()


def _healthy(answers: Sequence[object | None]) -> tuple[int, int]:
    """(healthy, all): who answers is healthy."""
    return sum(a is not None for a in answers), len(answers)
