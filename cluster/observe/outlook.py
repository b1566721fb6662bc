"""What a moment of a run says only together with those before it: shares of time, the bottleneck, the time that is left.

It asks nobody and reads no clock. Each process that watches a run has one; a resumed run's begins anew.
"""

from collections.abc import Iterable

from cluster.observe.bottleneck import LearnerLoad, Load, PoolLoad, find_bottleneck
from cluster.observe.eta import Pace
from cluster.observe.shares import Shares
from cluster.observe.view import Outlook, RunStats
from cluster.plan.placement import generation_role, judge_role
from cluster.plan.plan import Plan
from cluster.publish.stats import StepReport
from protocol.roles import PLAYERS, Player

ROLLOUT = "rollout"


class Horizon:
    """Takes a run's moments in their order, and gives the `Outlook` of each."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._waits, self._busy = Shares(), Shares()
        self._pace = Pace(plan.trained, plan.steps, turns=plan.replay.alternate_every is not None)
        self._judges = [judge_role(k) for k in range(plan.judge.config.workers)]
        self._engines = {p: [generation_role(p, k) for k in range(plan.generation.workers)] for p in PLAYERS}

    def look(self, stats: RunStats, reports: Iterable[StepReport], monotonic_s: float, unix_s: float) -> Outlook:
        """The outlook at a moment.

        Args:
            reports: of the learners, since the moment before.
        """
        self._pace.note(reports)
        replay = stats.replay
        if replay.answered:
            waits = {str(p): wait.total_s for p, wait in replay.learner_waits.items()}
            self._waits.note(monotonic_s, {ROLLOUT: replay.rollout_waits.total_s, **waits})
        if stats.busy.of:
            self._busy.note(stats.busy.at_s, stats.busy.of)
        load = self._load(stats)
        return Outlook(
            bottleneck=find_bottleneck(load) if replay.answered else "",
            eta_s=self._pace.seconds_left(unix_s),
            judge_busy=load.judge.busy,
            engines_busy={p: pool.busy for p, pool in load.engines.items()},
        )

    def _load(self, stats: RunStats) -> Load:
        replay, pressure = stats.replay, stats.replay.backpressure
        return Load(
            learners={p: self._learner(p, stats) for p in self._learning(stats)},
            rollout_waits=self._waits.of(ROLLOUT),
            judge=PoolLoad(*stats.healthy_judges, self._busy.mean(self._judges)),
            engines={p: PoolLoad(*stats.healthy_generators[p], self._busy.mean(self._engines[p])) for p in PLAYERS},
            in_flight=replay.games.in_flight,
            limit=None if pressure is None else pressure.limit,
            kv_usage=None if pressure is None else pressure.kv_usage,
            queue=None if pressure is None else pressure.waiting,
            max_staleness=self._plan.replay.admission.max_staleness,
            paused_s=replay.alarm.up_s,
        )

    def _learning(self, stats: RunStats) -> list[Player]:
        """Who has steps to take, and may take one now."""
        players, turn = stats.publisher.players, stats.replay.turn
        return [p for p in self._plan.trained if players[p].step < self._plan.steps and turn in (None, p)]

    def _learner(self, player: Player, stats: RunStats) -> LearnerLoad:
        wait = stats.replay.learner_waits[player]
        asked = wait.total_s > 0 or wait.waiting > 0
        return LearnerLoad(asked or stats.publisher.players[player].step > 0, self._waits.of(player))
