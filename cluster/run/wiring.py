"""Puts the parts of one run on the cluster: a placement group, the actors, and a task for each learner group.

The only module that knows every part's constructor. It decides nothing about the game and holds no state of the run.
"""

import asyncio
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors import rollout
from actors.clients import RemoteGenerator
from actors.generation import GenerationWorker
from cluster.calls import Named
from cluster.inputs.find import Inputs
from cluster.observe.logs import log_rank, logged
from cluster.plan.demand import Demand
from cluster.plan.transports import Transport, transports_of
from cluster.publish.actor import WeightPublisher
from cluster.publish.client import PublisherSink, VersionClient
from cluster.publish.native import NativeSink
from cluster.replay.actor import ReplayBuffer
from cluster.replay.client import BatchClient, ReplayClient
from cluster.run.judge_engine import engine_builder
from cluster.rundir import RunDir
from cluster.sandbox.rule_judge import RuleJudge
from judge.cache import VerdictCache
from judge.identity import judge_id_of
from judge.pool import JudgePool
from judge.rubric import load_rubrics
from judge.stats import PoolStats
from judge.worker import JudgeWorker
from learners.fit import fit_group
from learners.loop import LearnerSpec
from protocol.errors import UserError
from protocol.interfaces import GameSource, Generator
from protocol.recipe import Recipe
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

    def generator(self, player: Player, recipe: Recipe) -> RemoteGenerator:
        return RemoteGenerator(self.generators[player], recipe.generation)

    def judge(self, recipe: Recipe) -> JudgePool:
        return judge_pool(self.judges, recipe)


@dataclass(frozen=True, slots=True)
class RolloutStats(rollout.RolloutStats):
    """With what the worker's judge pool counted."""

    pool: PoolStats = field(default_factory=PoolStats)


class RolloutWorker(rollout.RolloutWorker):
    """A rollout worker that tells what its judge pool counted."""

    def __init__(
        self, name: str, recipe: Recipe, source: GameSource, attacker: Generator, defender: Generator, pool: JudgePool
    ) -> None:
        super().__init__(name, recipe, source, attacker, defender, pool)
        self._pool = pool

    async def stats(self) -> RolloutStats:
        games = await super().stats()
        return RolloutStats(games.playing, games.finished, games.abandoned, self._pool.stats())


def judge_pool(workers: Sequence[Any], recipe: Recipe) -> JudgePool:
    """A pool over the run's judge workers, with a memory of its own."""
    judge = recipe.judge
    rubrics = load_rubrics(judge.rubrics).names if judge.kind in ("lm", "api") else ()
    key = " ".join([judge_id_of(judge), *rubrics])
    admits = judge.api.concurrency if judge.kind == "api" else None
    return JudgePool(workers, judge.deadline_s, judge.attempts, VerdictCache(judge.cache_entries), key, admits)


def wire_dtype(dtype: str, model_path: str) -> str:
    """What is pushed and exported: the recipe's dtype, which with `auto` is the model folder's own."""
    if dtype != "auto":
        return dtype
    config = json.loads((Path(model_path) / "config.json").read_text())
    named = config.get("dtype") or config.get("torch_dtype")
    return named if named in ("float32", "bfloat16") else "bfloat16"


async def reserve(demand: Demand) -> PlacementGroup:
    """The bundles of everything but the learner ranks.

    Raises:
        UserError: the cluster does not give them within `PLACEMENT_S`.
    """
    group = placement_group([dict(b) for b in demand.bundles], strategy="PACK")
    try:
        async with asyncio.timeout(PLACEMENT_S):
            await group.ready()
    except TimeoutError:
        remove_placement_group(group)
        raise UserError(
            f"placement: {demand.cpus:g} CPUs and {demand.gpus:g} GPUs were not free within {PLACEMENT_S:.0f} s; "
            "end other jobs or lower the recipe's workers and ranks"
        ) from None
    return group


class _Builder:
    """Starts actors one after the other, each in the next bundle of the placement group, under its role's name."""

    def __init__(self, recipe: Recipe, run_dir: RunDir, group: PlacementGroup) -> None:
        self._run, self._run_dir, self._group, self._next = recipe.run.name, run_dir, group, 0

    def named(self, role: str) -> Named:
        return Named(f"{self._run}/{role}")

    def actor(self, cls: type, role: str, *args: Any, restarts: int = -1, retries: int = -1) -> Any:
        bundle = self._group.bundle_specs[self._next]
        options: dict[str, Any] = {
            "name": f"{self._run}/{role}",
            "num_cpus": bundle.get("CPU", 0.0),
            "num_gpus": bundle.get("GPU", 0.0),
            "max_concurrency": MANY,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, self._next),
            "max_restarts": restarts,
            "max_task_retries": retries,
        }
        self._next += 1
        return ray.remote(logged(cls, self._run_dir.path, role)).options(**options).remote(*args)


def build(recipe: Recipe, inputs: Inputs, run_dir: RunDir, group: PlacementGroup) -> Parts:
    """Starts every actor and the learner groups; returns at once, they come up side by side."""
    b, g = _Builder(recipe, run_dir, group), recipe.generation  # actors in the order of `placement.demand_of`'s bundles
    replay = b.actor(ReplayBuffer, "replay-0", str(run_dir.path), recipe, inputs.train)
    transports = transports_of(recipe)
    # A restarted publisher would know neither weights nor workers: its death ends the run, which can be resumed.
    publisher = b.actor(
        WeightPublisher,
        "publisher-0",
        recipe.push,
        g.start_deadline_s,
        recipe.push_periods,
        [player for player, transport in transports.items() if transport != "host"],
        restarts=0,
        retries=0,
    )

    def engines(player: Player) -> list[Any]:
        def engine(k: int) -> Any:
            versions = VersionClient(b.named("publisher-0"), f"{player}-{k}")
            return b.actor(GenerationWorker, f"generation-{player}-{k}", player, inputs.models[player], g, versions)

        return [engine(k) for k in range(g.workers)]

    generators = {player: engines(player) for player in PLAYERS}
    registered = [publisher.register.remote(player, generators[player]) for player in PLAYERS]
    judges = _judges(b, recipe, inputs, run_dir)
    playing = b.actor(
        RolloutWorker,
        "rollout-0",
        "rollout-0",
        recipe,
        ReplayClient(b.named("replay-0")),
        *(RemoteGenerator([b.named(f"generation-{p}-{k}") for k in range(g.workers)], g) for p in PLAYERS),
        judge_pool([b.named(f"judge-{k}") for k in range(recipe.judge.workers)], recipe),
    )
    source = BatchClient(replay)
    sinks = {player: _sink(recipe, publisher, transport) for player, transport in transports.items()}
    learners = {p: _learn(p, recipe, inputs, run_dir, source, sinks[p]) for p in recipe.trained}
    return Parts(group, replay, publisher, judges, generators, playing, learners, registered)


def _judges(b: _Builder, recipe: Recipe, inputs: Inputs, run_dir: RunDir) -> list[Any]:
    judge = recipe.judge
    engine = None if inputs.judge_model is None else engine_builder(recipe, inputs.judge_model)
    ledger: str | None = None
    if judge.kind == "api":
        run_dir.ledger.parent.mkdir(exist_ok=True)
        ledger = str(run_dir.ledger)
    # No retries of Ray's: the pool asks another worker at once instead of waiting for this one to come back.
    return [
        b.actor(JudgeWorker, f"judge-{k}", judge, judge_id_of(judge), engine, ledger, RuleJudge, retries=0)
        for k in range(judge.workers)
    ]


def _sink(recipe: Recipe, publisher: Any, transport: Transport) -> PublisherSink:
    if transport == "host":
        return PublisherSink(publisher)
    return NativeSink(publisher, transport, recipe.push, recipe.generation.tensor_parallel)


def settle_every(recipe: Recipe) -> int:
    """Steps after which a learner waits until its version is served; 0: it never does.

    At staleness 0 every step: games that start while the push is under way are stale before they end. With turns at the end of
    each: the next player learns against the opponent as it stands now.
    """
    return 1 if recipe.replay.max_staleness == 0 else recipe.learners.alternate_every or 0


def _learn(
    player: Player, recipe: Recipe, inputs: Inputs, run_dir: RunDir, source: BatchClient, sink: PublisherSink
) -> Any:
    """The task that runs one learner group to its end."""
    spec = LearnerSpec(
        player=player,
        model_path=inputs.models[player],
        config=recipe.learners.of(player),
        steps=recipe.run.steps,
        run_seed=recipe.run.seed,
        run_dir=str(run_dir.path),
        wire_dtype=wire_dtype(
            recipe.generation.dtype if recipe.push.dtype == "auto" else recipe.push.dtype, inputs.models[player]
        ),
        push_every=recipe.push.every,
        quirks=recipe.quirks,
        settle_every=settle_every(recipe),
        stage_mib=recipe.push.stage_mib,
        stage_s=recipe.push.deadlines.stage_s,
    )
    on_rank = functools.partial(log_rank, str(run_dir.path), player)
    return ray.remote(fit_group).options(num_cpus=0, max_retries=0).remote(spec, source, sink, on_rank)


def take_down(parts: Parts) -> None:
    """Ends what `build` started. Needed on a cluster that goes on without us; a local Ray ends as a whole."""
    for ref in parts.learners.values():
        ray.cancel(ref, force=True, recursive=True)
    workers = [*parts.generators["attacker"], *parts.generators["defender"], *parts.judges]
    for handle in [parts.rollout, *workers, parts.publisher, parts.replay]:
        ray.kill(handle)
    remove_placement_group(parts.group)
