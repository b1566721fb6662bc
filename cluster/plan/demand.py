"""What a run needs at the same time, learner ranks included. Pure arithmetic over the recipe and its placement."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.plan.placement import Placement
from protocol.recipe import EngineConfig, LearnerConfig, Recipe
from protocol.roles import PLAYERS, Player

BYTES = {"float32": 4, "bfloat16": 2}
VERSIONS = 2  # of a player in its learner's node's memory: the one that workers load, and the next that is staged
ADAM_BYTES = 12  # of each parameter: its fp32 master and two moments
EMA_BYTES = 4

ENGINE_GIB = 1.4  # the two processes of a CPU engine without its KV cache and weights, as measured on the sandbox
RANK_GIB = 0.8  # one learner rank without weights, as measured on the sandbox
BASE_GIB = 2.0  # Ray's and Ray Train's own processes, the driver, judges, rollout and replay


@dataclass(frozen=True, slots=True)
class Demand:
    """CPUs and GPUs in Ray's units (fractions allowed), host memory in GiB, the models' weights included."""

    cpus: float
    gpus: float
    memory_gib: float


@dataclass(frozen=True, slots=True)
class Models:
    """How large the models are.

    Attributes:
        parameters: of each player's.
        push_bytes: of each player's parameters, as they are pushed.
        judge_bytes: of the judge's weights as they are stored; 0: it has none.
    """

    parameters: Mapping[Player, float] = field(default_factory=dict)
    push_bytes: Mapping[Player, int] = field(default_factory=dict)
    judge_bytes: float = 0.0


def demand_of(recipe: Recipe, placement: Placement, models: Models | None = None) -> Demand:
    """The sum over all bundles and learner ranks.

    Args:
        models: None: without their weights.
    """
    g, j = recipe.generation, recipe.judge
    learners = [recipe.learners.of(p) for p in recipe.trained]
    ranks = [bundle for group in placement.learners.values() for bundle in group]
    cpus = sum(bundle.cpus for bundle in (*placement.bundles, *ranks))
    engines = len(PLAYERS) * g.workers * _engine_gib(g, g.gpus_per_worker)
    judges = j.workers * _engine_gib(j.engine, j.gpus_per_worker) if j.kind == "lm" else 0.0
    memory = BASE_GIB + engines + judges + sum(c.ranks for c in learners) * RANK_GIB
    memory += 0.0 if models is None else weights_gib(recipe, models)
    return Demand(round(cpus, 3), round(recipe.gpus, 3), round(memory, 2))


def _engine_gib(engine: EngineConfig, gpus: float) -> float:
    """Host memory of one engine; on a GPU its KV cache is there."""
    return ENGINE_GIB + (0.0 if gpus else engine.kv_cache_gib)


def weights_gib(recipe: Recipe, models: Models) -> float:
    """Host memory of the weights: of engines on the CPU, of learners on the CPU or offloaded to it, of versions on their way.

    What is counted is there at the same time in every run. Gradients, activations and copies between nodes come to it.
    """
    g, j = recipe.generation, recipe.judge
    total = 0.0
    for player, n in models.parameters.items():
        pushed = models.push_bytes[player]
        if not g.gpus_per_worker:
            total += g.workers * n * (pushed if g.dtype == "auto" else BYTES[g.dtype])
        if player in recipe.trained:
            total += n * (VERSIONS * pushed + _learner_bytes(recipe.learners.of(player)))
    if not j.gpus_per_worker:
        total += j.workers * models.judge_bytes
    return total / 2**30


def _learner_bytes(c: LearnerConfig) -> int:
    """Of each parameter in the CPU's memory, over all ranks: ZeRO-3 splits them."""
    on_cpu = not c.gpus_per_rank
    bytes_each = BYTES[c.dtype] if on_cpu or c.offload == "all" else 0
    if c.lora is None and (on_cpu or c.offload != "none"):
        bytes_each += ADAM_BYTES
    if c.lora is None and on_cpu and "ema" in (c.reference, c.sampler):
        bytes_each += EMA_BYTES
    return bytes_each
