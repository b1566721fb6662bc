"""What a run needs at the same time, learner ranks included. Pure arithmetic over the recipe and its placement."""

from dataclasses import dataclass

from cluster.plan.placement import Placement
from protocol.recipe import EngineConfig, Recipe
from protocol.roles import PLAYERS

ENGINE_GIB = 1.4  # the two processes of a CPU engine without its KV cache and weights, as measured on the sandbox
RANK_GIB = 0.8  # one learner rank without weights, as measured on the sandbox
BASE_GIB = 2.0  # Ray's and Ray Train's own processes, the driver, judges, rollout and replay


@dataclass(frozen=True, slots=True)
class Demand:
    """CPUs and GPUs in Ray's units (fractions allowed), host memory in GiB without the weights."""

    cpus: float
    gpus: float
    memory_gib: float


def demand_of(recipe: Recipe, placement: Placement) -> Demand:
    """The sum over all bundles and learner ranks."""
    g, j = recipe.generation, recipe.judge
    learners = [recipe.learners.of(p) for p in recipe.trained]
    ranks = [bundle for group in placement.learners.values() for bundle in group]
    cpus = sum(bundle.cpus for bundle in (*placement.bundles, *ranks))
    engines = len(PLAYERS) * g.workers * _engine_gib(g, g.gpus_per_worker)
    judges = j.workers * _engine_gib(j.engine, j.gpus_per_worker) if j.kind == "lm" else 0.0
    memory = BASE_GIB + engines + judges + sum(c.ranks for c in learners) * RANK_GIB
    return Demand(round(cpus, 3), round(recipe.gpus, 3), round(memory, 2))


def _engine_gib(engine: EngineConfig, gpus: float) -> float:
    """Host memory of one engine; on a GPU its KV cache is there."""
    return ENGINE_GIB + (0.0 if gpus else engine.kv_cache_gib)
