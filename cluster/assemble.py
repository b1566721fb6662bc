"""Puts the parts of one run on the cluster: a placement group, the actors, and the two learner tasks.

The only module that knows every part's constructor. It decides nothing about the game and holds no state of the run.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.clients import RemoteGenerator
from actors.generation import GenerationWorker
from actors.rollout import RolloutWorker
from cluster.logs import logged
from cluster.placement import Demand
from cluster.publisher import WeightPublisher
from cluster.publisher_client import PublisherSink, VersionClient
from cluster.replay.actor import ReplayBuffer
from cluster.replay.client import BatchClient, ReplayClient
from cluster.seedbank import Inputs
from judge.pool import JudgePool
from judge.worker import JudgeWorker
from learners.group import fit_group
from learners.loop import LearnerSpec
from protocol.errors import UserError
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
    learners: dict[Player, Any]  # object refs of the learner tasks

    def generator(self, player: Player, recipe: Recipe) -> RemoteGenerator:
        return RemoteGenerator(self.generators[player], recipe.generation)

    def judge(self, recipe: Recipe) -> JudgePool:
        return JudgePool(self.judges, recipe.judge.deadline_s, recipe.judge.attempts)


def wire_dtype(dtype: str, model_path: str) -> str:
    """What is pushed and exported: what the engine holds, which with `auto` is the model folder's own dtype."""
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


def build(recipe: Recipe, inputs: Inputs, run_dir: Path, group: PlacementGroup) -> Parts:
    """Starts every actor and both learner groups; returns at once, they come up side by side."""
    bundle = iter(range(group.bundle_count))

    def actor(cls: type, role: str, cpus: float, gpus: float, *args: Any, restarts: int = -1) -> Any:
        options: dict[str, Any] = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_concurrency": MANY,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, next(bundle)),
            "max_restarts": restarts,
            "max_task_retries": restarts,
        }
        return ray.remote(logged(cls, run_dir, role)).options(**options).remote(*args)

    bundles = group.bundle_specs
    cpu = [b.get("CPU", 0.0) for b in bundles]
    at = iter(cpu)
    g = recipe.generation
    replay = actor(ReplayBuffer, "replay-0", next(at), 0, str(run_dir), recipe, inputs.train)
    # A restarted publisher would know neither weights nor workers: its death ends the run, which can be resumed.
    deadlines = (recipe.push.deadline_s, g.start_deadline_s)
    publisher = actor(WeightPublisher, "publisher-0", next(at), 0, *deadlines, restarts=0)
    versions = VersionClient(publisher)
    generators: dict[Player, list[Any]] = {
        player: [
            actor(
                GenerationWorker,
                f"generation-{player}-{k}",
                next(at),
                g.gpus_per_worker,
                player,
                inputs.models[player],
                g,
                versions,
            )
            for k in range(g.workers)
        ]
        for player in PLAYERS
    }
    for player in PLAYERS:
        publisher.register.remote(player, generators[player])
    judges = [actor(JudgeWorker, f"judge-{k}", next(at), 0, recipe.judge) for k in range(recipe.judge.workers)]
    parts = Parts(group, replay, publisher, judges, generators, None, {})
    parts.rollout = actor(
        RolloutWorker,
        "rollout-0",
        next(at),
        0,
        "rollout-0",
        recipe,
        ReplayClient(replay),
        parts.generator("attacker", recipe),
        parts.generator("defender", recipe),
        parts.judge(recipe),
    )
    for player in PLAYERS:
        spec = LearnerSpec(
            player=player,
            model_path=inputs.models[player],
            config=getattr(recipe.learners, player),
            steps=recipe.run.steps,
            run_seed=recipe.run.seed,
            run_dir=str(run_dir),
            wire_dtype=wire_dtype(g.dtype, inputs.models[player]),
            push_every=recipe.push.every,
        )
        task = ray.remote(fit_group).options(num_cpus=0, max_retries=0)
        parts.learners[player] = task.remote(spec, BatchClient(replay), PublisherSink(publisher))
    return parts


def take_down(parts: Parts) -> None:
    """Ends what `build` started. Needed on a cluster that goes on without us; a local Ray ends as a whole."""
    for ref in parts.learners.values():
        ray.cancel(ref, force=True, recursive=True)
    workers = [*parts.generators["attacker"], *parts.generators["defender"], *parts.judges]
    for handle in [parts.rollout, *workers, parts.publisher, parts.replay]:
        ray.kill(handle)
    remove_placement_group(parts.group)
