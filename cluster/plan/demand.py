"""What a recipe asks of the machine, and whether it is there.

Pure arithmetic over the recipe; `cluster.run.wiring` turns the demand into a placement group. Ray Train places the learner ranks
itself, so their share is counted here but reserved there.
"""

from dataclasses import dataclass

from protocol.errors import UserError
from protocol.recipe import EngineConfig, Recipe
from protocol.roles import PLAYERS

ROLLOUT_CPUS = 0.1  # mostly waits
SERVICE_CPUS = 0.05  # replay, publisher: each
ENGINE_GIB = 1.4  # the two processes of a CPU engine without its KV cache and weights, as measured on the sandbox
RANK_GIB = 0.8  # one learner rank without weights, as measured on the sandbox
BASE_GIB = 2.0  # Ray's and Ray Train's own processes, the driver, judges, rollout and replay


@dataclass(frozen=True)
class Demand:
    """CPUs and GPUs in Ray's units (fractions allowed), memory in GiB."""

    cpus: float
    gpus: float
    memory_gib: float
    bundles: tuple[dict[str, float], ...]  # of everything but the learner ranks


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _engine_gib(engine: EngineConfig, gpus: float) -> float:
    """Host memory of one engine; on a GPU its KV cache is there."""
    return ENGINE_GIB + (0.0 if gpus else engine.kv_cache_gib)


def demand_of(recipe: Recipe) -> Demand:
    """What the run needs at the same time, weights not counted."""
    g, j = recipe.generation, recipe.judge
    generators = len(PLAYERS) * g.workers
    bundles = [
        *[_bundle(SERVICE_CPUS, 0.0)] * 2,
        *[_bundle(g.cpus_per_worker, g.gpus_per_worker)] * generators,
        *[_bundle(j.cpus_per_worker, j.gpus_per_worker)] * j.workers,
        _bundle(ROLLOUT_CPUS, 0.0),
    ]
    learners = [recipe.learners.of(p) for p in recipe.trained]
    cpus = sum(b["CPU"] for b in bundles) + sum(c.ranks * c.cpus_per_rank for c in learners)
    gpus = sum(b.get("GPU", 0.0) for b in bundles) + sum(c.ranks * c.gpus_per_rank for c in learners)
    memory = BASE_GIB + generators * _engine_gib(g, g.gpus_per_worker) + sum(c.ranks for c in learners) * RANK_GIB
    if j.kind == "lm":
        memory += j.workers * _engine_gib(j.engine, j.gpus_per_worker)
    return Demand(round(cpus, 3), round(gpus, 3), round(memory, 2), tuple(bundles))


def check_room(demand: Demand, free_cpus: float, free_gpus: float, free_memory_gib: float, where: str) -> None:
    """Raises `UserError` naming the first resource that is short.

    Args:
        demand: from `demand_of`.
        free_cpus, free_gpus, free_memory_gib: what Ray has to give, over all nodes.
        where: "this machine" or "the cluster".
    """
    if demand.cpus > free_cpus + 1e-6:
        raise UserError(
            f"placement: the recipe needs {demand.cpus:g} CPUs at once, {where} has {free_cpus:g} free; "
            "lower cpus_per_worker, cpus_per_rank, workers or ranks, or free some"
        )
    if demand.gpus > free_gpus + 1e-6:
        raise UserError(
            f"placement: the recipe needs {demand.gpus:g} GPUs at once, {where} has {free_gpus:g} free; "
            "lower gpus_per_worker, gpus_per_rank, workers or ranks, or add some"
        )
    if demand.memory_gib > free_memory_gib:
        raise UserError(
            f"placement: the recipe needs about {demand.memory_gib:g} GiB of memory, {where} has {free_memory_gib:.1f} free; "
            "lower kv_cache_gib, workers or ranks, or free some"
        )
