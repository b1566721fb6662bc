"""Puts the parts of one run on the cluster: a placement group, the actors, and a task for each learner group.

The only module that knows every part's constructor. It decides nothing about the game and holds no state of the run.
"""

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors import rollout
from actors.clients import RemoteGenerator
from actors.generation import GenerationWorker
from cluster.calls import NamedActor
from cluster.observe.logs import log_rank, with_log
from cluster.plan.placement import PUBLISHER, REPLAY, ROLLOUT, generation_role, judge_role
from cluster.plan.plan import JudgePlan, Plan
from cluster.publish.actor import WeightPublisher
from cluster.publish.client import PublisherSink, VersionClient
from cluster.publish.native import NativeSink
from cluster.replay.actor import ReplayBuffer
from cluster.replay.client import BatchClient, ReplayClient
from cluster.run.judge_engine import engine_builder
from cluster.sandbox.rule_judge import RuleJudge
from judge.cache import VerdictCache
from judge.pool import JudgePool
from judge.stats import PoolStats
from judge.worker import JudgeWorker
from learners.fit import fit_group
from protocol.errors import UserError
from protocol.roles import PLAYERS, Player

PLACEMENT_S = 60.0  # a cluster that cannot reserve the bundles by then has no room
MANY = 2000  # concurrent calls of an async actor: every game in flight may hold one


@dataclass
class Parts:
    """Handles of everything that runs."""

    group: PlacementGroup
    replay: Any
    publisher: Any
    judges: list[Any]
    generators: dict[Player, list[Any]]
    rollout: Any
    learners: dict[Player, Any]  # object refs of the learner tasks, of the players that learn
    registered: list[Any]  # object refs: the publisher knows the workers; it starts them


@dataclass(frozen=True, slots=True)
class RolloutWorkerStats(rollout.RolloutStats):
    """With what the worker's judge pool counted."""

    pool: PoolStats = field(default_factory=PoolStats)


class RolloutWorker(rollout.RolloutWorker):
    """A rollout worker whose judge is a `JudgePool`, and that tells what the pool counted."""

    async def stats(self) -> RolloutWorkerStats:
        games, pool = await super().stats(), cast(JudgePool, self._judge).stats()
        return RolloutWorkerStats(games.playing, games.finished, games.abandoned, pool)


def judge_pool(workers: Sequence[Any], judge: JudgePlan) -> JudgePool:
    """A pool over the run's judge workers, with a memory of its own."""
    config = judge.config
    cache = VerdictCache(config.cache_entries)
    return JudgePool(workers, config.deadline_s, config.attempts, cache, judge.key, judge.admits)


async def reserve(plan: Plan) -> PlacementGroup:
    """The bundles of everything but the learner ranks.

    Raises:
        UserError: the cluster does not give them within `PLACEMENT_S`.
    """
    group = placement_group([bundle.resources() for bundle in plan.placement.bundles], strategy="PACK")
    try:
        async with asyncio.timeout(PLACEMENT_S):
            await group.ready()
    except TimeoutError:
        remove_placement_group(group)
        raise UserError(
            f"placement: {plan.demand.cpus:g} CPUs and {plan.demand.gpus:g} GPUs were not free within {PLACEMENT_S:.0f} s; "
            "end other jobs or lower the recipe's workers and ranks"
        ) from None
    return group


class _Builder:
    """Starts actors, each in its role's bundle of the placement group and under its role's name."""

    def __init__(self, plan: Plan, group: PlacementGroup) -> None:
        self._plan, self._group = plan, group

    def handle(self, role: str) -> NamedActor:
        """The actor of that role, by name: what parts hold of each other."""
        return NamedActor(f"{self._plan.name}/{role}")

    def start(self, cls: type, role: str, *args: Any, restarts: int = -1, retries: int = -1) -> Any:
        """Starts the actor of a role; returns at once."""
        index = self._plan.placement.index_of(role)
        bundle = self._plan.placement.bundles[index]
        options: dict[str, Any] = {
            "name": f"{self._plan.name}/{role}",
            "num_cpus": bundle.cpus,
            "num_gpus": bundle.gpus,
            "max_concurrency": MANY,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, index),
            "max_restarts": restarts,
            "max_task_retries": retries,
        }
        return ray.remote(with_log(cls, self._plan.run_dir.path, role)).options(**options).remote(*args)


def build(plan: Plan, group: PlacementGroup) -> Parts:
    """Starts every actor and the learner groups; returns at once, they come up side by side."""
    b, g = _Builder(plan, group), plan.generation
    replay = b.start(ReplayBuffer, REPLAY, str(plan.run_dir.path), plan.replay, plan.inputs.train)
    publisher = _start_publisher(b, plan)
    generators = {player: _start_engines(b, plan, player) for player in PLAYERS}
    registered = [publisher.register.remote(player, generators[player]) for player in PLAYERS]
    judges = _start_judges(b, plan)
    players = (RemoteGenerator([b.handle(generation_role(p, k)) for k in range(g.workers)], g) for p in PLAYERS)
    pool = judge_pool([b.handle(judge_role(k)) for k in range(plan.judge.config.workers)], plan.judge)
    playing = b.start(RolloutWorker, ROLLOUT, ROLLOUT, plan.rules, ReplayClient(b.handle(REPLAY)), *players, pool)
    source = BatchClient(replay)
    learners = {player: _start_learner(plan, player, source, publisher) for player in plan.learners}
    return Parts(group, replay, publisher, judges, generators, playing, learners, registered)


def _start_publisher(b: _Builder, plan: Plan) -> Any:
    native = [player for player, transport in plan.transports.items() if transport != "host"]
    # A restarted publisher would know neither weights nor workers: its death ends the run, which can be resumed.
    return b.start(
        WeightPublisher,
        PUBLISHER,
        plan.push,
        plan.generation.start_deadline_s,
        plan.push_periods,
        native,
        restarts=0,
        retries=0,
    )


def _start_engines(b: _Builder, plan: Plan, player: Player) -> list[Any]:
    model, g = plan.inputs.models[player], plan.generation

    def start(k: int) -> Any:
        versions = VersionClient(b.handle(PUBLISHER), f"{player}-{k}")
        return b.start(GenerationWorker, generation_role(player, k), player, model, g, versions)

    return [start(k) for k in range(g.workers)]


def _start_judges(b: _Builder, plan: Plan) -> list[Any]:
    judge, model = plan.judge, plan.inputs.judge_model
    engine = None if model is None else engine_builder(judge.config, model)
    ledger: str | None = None
    if judge.config.kind == "api":
        plan.run_dir.ledger.parent.mkdir(exist_ok=True)
        ledger = str(plan.run_dir.ledger)
    # No retries of Ray's: the pool asks another worker at once instead of waiting for this one to come back.
    return [
        b.start(JudgeWorker, judge_role(k), judge.config, judge.judge_id, engine, ledger, RuleJudge, retries=0)
        for k in range(judge.config.workers)
    ]


def _start_learner(plan: Plan, player: Player, source: BatchClient, publisher: Any) -> Any:
    """The task that runs one learner group to its end."""
    transport = plan.transports[player]
    if transport == "host":
        sink = PublisherSink(publisher)
    else:
        sink = NativeSink(publisher, transport, plan.push, plan.generation.tensor_parallel)
    on_rank = functools.partial(log_rank, str(plan.run_dir.path), player)
    return ray.remote(fit_group).options(num_cpus=0, max_retries=0).remote(plan.learners[player], source, sink, on_rank)


def take_down(parts: Parts) -> None:
    """Ends what `build` started. Needed on a cluster that goes on without us; a local Ray ends as a whole."""
    for ref in parts.learners.values():
        ray.cancel(ref, force=True, recursive=True)
    workers = [*parts.generators["attacker"], *parts.generators["defender"], *parts.judges]
    for handle in [parts.rollout, *workers, parts.publisher, parts.replay]:
        ray.kill(handle)
    remove_placement_group(parts.group)
