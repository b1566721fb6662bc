"""Asks a run's parts for their statistics. Where a part does not answer, its last answer stands.

It shows nothing and judges nothing; the learners' reports, which come with the answers, go to the history. A part that hangs holds
the look at the others up for no more than `answers.ANSWER_S`: they are asked together. Engines and judges, which hang most easily,
hold nothing up: they are asked beside the driver's loop.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from cluster.observe.history import History
from cluster.observe.view import BusySeconds, RunStats
from cluster.plan.placement import PUBLISHER, REPLAY, generation_role, judge_role, rollout_role
from cluster.publish.stats import PublisherStats, StepReport, carry_over
from cluster.run.answers import answer_or, answers_of
from cluster.run.pools import RolloutWorkerStats
from cluster.run.states import RunFailed
from cluster.run.supervision import Fitness
from cluster.run.wiring import Parts
from judge.stats import JudgeStats, add_judges, add_pools
from protocol.roles import PLAYERS
from protocol.router_state import RouterStats

log = structlog.get_logger(__name__)


class RisingSum:
    """The sum of counts that each process keeps of itself, where a process that starts anew begins at 0: it never falls.

    What a process counted between the last answer and its death is missing.
    """

    def __init__(self) -> None:
        self._before: Counter[str] = Counter()  # by role, of its earlier processes
        self._newest: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> int:
        """Takes what those roles that answered count now. Gives the sum over all roles that ever did."""
        for role, count in counts.items():
            if count < self._newest[role]:
                self._before[role] += self._newest[role]
            self._newest[role] = count
        return self._before.total() + self._newest.total()


class Poll:
    """The statistics of one run; `stats` is the newest of each part.

    Args:
        history: where the learners' reports go.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.stats = RunStats()
        self._before = PublisherStats()  # of the publishers that died
        self._rollouts: dict[int, RolloutWorkerStats] = {}
        self._tokens = RisingSum()
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, parts: Parts) -> list[StepReport]:
        """Asks replay buffer, publisher and rollout workers; gives the learners' new reports. Raises `RunFailed` if one is dead."""
        asked = {REPLAY: parts.replay, PUBLISHER: parts.publisher}
        asked |= {rollout_role(k): handle for k, handle in enumerate(parts.rollouts)}
        answers = await answers_of({role: handle.stats.remote() for role, handle in asked.items()})
        replay, publisher, *rollouts = answers.values()
        self.stats = replace(self.stats, replay=replay or self.stats.replay)
        self.note_rollouts(rollouts)
        if publisher is None:
            return []  # it would not answer this either; what the learners report stays with it
        self._note_publisher(parts, publisher)
        reports: list[StepReport] = await answer_or(PUBLISHER, parts.publisher.drain_metrics.remote(), [])
        self._history.add(reports)
        return reports

    def _note_publisher(self, parts: Parts, publisher: PublisherStats) -> None:
        """A restarted one knows no worker: it is told them, and its counts go on."""
        last = self.stats.publisher
        if last.answered and publisher.holder != last.holder:
            log.error("the publisher was restarted", part=PUBLISHER)
            self._before = last
        publisher = carry_over(self._before, publisher)
        self.stats = replace(self.stats, publisher=publisher)
        for player, mine in publisher.players.items():
            if parts.generators.get(player) and not mine.workers:
                parts.register(player, mine.newest)

    def begin_ask_workers(self, parts: Parts) -> None:
        """Has `ask_workers` done beside the caller, unless it still is. Raises what the last one raised."""
        if self._asking is not None:
            if not self._asking.done():
                return
            asked, self._asking = self._asking, None
            asked.result()
        self._asking = asyncio.create_task(self.ask_workers(parts))

    async def ask_workers(self, parts: Parts) -> None:
        """Asks the generation and judge workers what they counted. Raises `RunFailed` if one is dead."""
        playing = {generation_role(p, k): h for p in PLAYERS for k, h in enumerate(parts.generators[p])}
        judging = {judge_role(k): h for k, h in enumerate(parts.judges)}
        # Of those that answer, before the others are waited for: what they count is compared with this moment.
        asked_s = time.monotonic()
        answers = await answers_of({role: h.stats.remote() for role, h in (playing | judging).items()})
        if asked_s < self.stats.busy.at_s:
            return  # a later asking was answered first
        known: dict[str, Any] = {role: a for role, a in answers.items() if a is not None}
        judges: list[JudgeStats] = [known[role] for role in judging if role in known]
        self.stats = replace(
            self.stats,
            tokens=self._tokens.add({role: known[role].tokens for role in playing if role in known}),
            judges=add_judges(judges),
            busy=BusySeconds(asked_s, {role: a.busy_s for role, a in known.items()}),
        )

    def note_rollouts(self, answers: Sequence[RolloutWorkerStats | None]) -> None:
        """What the rollout workers counted; one that did not answer keeps its last answer."""
        for k, answer in enumerate(answers):
            if answer is not None:
                self._rollouts[k] = answer
        newest = self._rollouts.values()
        routed: dict[str, RouterStats] = {}
        for whom, one in (pair for answer in newest for pair in answer.routed.items()):
            routed[whom] = routed.get(whom, RouterStats()) + one
        self.stats = replace(self.stats, pool=add_pools(answer.pool for answer in newest), routed=routed)

    def note_fitness(self, fitness: Fitness) -> None:
        """How many workers supervision finds fit."""
        self.stats = replace(
            self.stats,
            healthy_judges=fitness.judges,
            healthy_generators=fitness.generators,
            replaced=fitness.replaced,
        )

    def missed(self) -> dict[str, int]:
        """For each worker's role, the asks in a row that it did not answer; of several callers' counts the largest."""
        return merge_missed(answer.missed for answer in self._rollouts.values())

    async def close(self, parts: Parts) -> list[StepReport]:
        """What the learners reported since the last ask, which a run that is cut short would lose. Writes the history."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)  # whatever it raised: the run ends already
            self._asking = None
        reports: list[StepReport] = []
        try:
            reports = await answer_or(PUBLISHER, parts.publisher.drain_metrics.remote(), [])
        except RunFailed:
            log.warning("the last reports are lost with the publisher")
        self._history.add(reports)
        self._history.write()
        return reports


def merge_missed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Of several callers' counts the largest, for each role."""
    merged: Counter[str] = Counter()
    for count in counts:
        merged |= Counter(count)
    return dict(merged)
