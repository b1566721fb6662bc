"""Whom a run's games ask: its generation workers and judges, each player's and the judges' seen as one; and the worker that plays.

Every process that asks has pools of its own, so that no process stands between a game and its engines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors import rollout
from actors.clients import RemoteGenerator
from actors.pool import WorkerPool
from cluster.plan.placement import generation_role, judge_role
from cluster.plan.plan import JudgePlan, Plan
from judge.cache import VerdictCache
from judge.pool import JudgePool
from judge.stats import PoolStats
from protocol import metrics as m
from protocol.interfaces import GameSource, Workers
from protocol.meter import meter
from protocol.roles import PLAYERS
from protocol.router_state import RouterStats
from protocol.rules import GameRules


@dataclass(frozen=True, slots=True)
class RolloutWorkerStats(rollout.RolloutStats):
    """With what the worker's pools counted.

    Attributes:
        pool: the judge pool's.
        missed: for each generation and judge worker's role, the asks in a row that it did not answer.
        routed: what the routers did, by whom they ask: a player or "judge".
    """

    pool: PoolStats = field(default_factory=PoolStats)
    missed: Mapping[str, int] = field(default_factory=dict)
    routed: Mapping[str, RouterStats] = field(default_factory=dict)


class Pools:
    """Everybody that a game asks, as one process asks them. Picklable while nothing was asked.

    Args:
        plan: of the run.
        name: of the process that asks.
        handle: gives a role's actor.
        share: (k, n): the k-th of n such processes.
    """

    def __init__(self, plan: Plan, name: str, handle: Callable[[str], Any], share: tuple[int, int] = (0, 1)) -> None:
        self._roles = {p: [generation_role(p, k) for k in range(plan.generation.workers)] for p in PLAYERS}
        self._judges = [judge_role(k) for k in range(plan.judge.config.workers)]
        self._generation = {
            p: WorkerPool([handle(role) for role in roles], plan.router, f"{name}/{p}", share)
            for p, roles in self._roles.items()
        }
        self._judging = WorkerPool([handle(role) for role in self._judges], plan.router, f"{name}/judge", share)
        deadline_s = plan.generation.deadline_s
        self.attacker = RemoteGenerator(self._generation["attacker"], deadline_s)
        self.defender = RemoteGenerator(self._generation["defender"], deadline_s)
        self.judge = judge_pool(self._judging, plan.judge)

    def missed(self) -> dict[str, int]:
        """For each worker's role, the asks in a row that it did not answer before they went elsewhere or expired."""
        asked = [(self._roles[p], pool) for p, pool in self._generation.items()] + [(self._judges, self._judging)]
        return {
            role: n for roles, pool in asked for role, n in zip(roles, pool.stats().missed, strict=False)
        }  # a pool that was never used has counted nothing

    def routed(self) -> dict[str, RouterStats]:
        """What the routers did, by whom they ask."""
        return {**{p: pool.stats() for p, pool in self._generation.items()}, "judge": self._judging.stats()}


class RolloutWorker(rollout.RolloutWorker):
    """A rollout worker that asks a run's pools, and tells what they counted."""

    def __init__(
        self, name: str, rules: GameRules, in_flight: int, source: GameSource, pools: Pools, source_s: float
    ) -> None:
        super().__init__(name, rules, in_flight, source, pools.attacker, pools.defender, pools.judge, source_s)
        self._pools = pools

    async def stats(self) -> RolloutWorkerStats:
        games, pool, routed = await super().stats(), self._pools.judge.stats(), self._pools.routed()
        meter().total(m.CACHE_HITS, pool.cache_hits)
        for whom, stats in routed.items():
            for outcome, n in _outcomes(stats).items():
                meter().total(m.ASKS, n, pool=whom, outcome=outcome)
        return RolloutWorkerStats(games.playing, games.finished, games.abandoned, pool, self._pools.missed(), routed)


def _outcomes(stats: RouterStats) -> dict[str, int]:
    """A router's asks by the names of `metrics.ASKS`."""
    return {
        "taken": stats.asks,
        "moved": stats.moved,
        "hedged": stats.hedged,
        "expired": stats.expired,
        "condemned": stats.condemned,
    }


def judge_pool(workers: Workers, judge: JudgePlan) -> JudgePool:
    """A pool over the run's judge workers, with a memory of its own."""
    config = judge.config
    cache = VerdictCache(config.cache_entries)
    return JudgePool(workers, config.deadline_s, config.attempts, cache, judge.key, judge.admits)
