"""Which ways a version can travel in a recipe's setting. Pure arithmetic; `cluster.plan.transports` chooses."""

from typing import Literal

from protocol.recipe.schema import RecipeFields
from protocol.roles import Player

Transport = Literal["host", "nccl", "ipc"]


def hindrance_of(transport: Transport, r: RecipeFields, player: Player) -> str | None:
    """Why it cannot work for a player, in words that follow its name; None: it can. `host` always can."""
    if transport == "host":
        return None
    learner = r.learners.of(player)
    for name, gpus in (
        ("generation.gpus_per_worker", r.generation.gpus_per_worker),
        (f"learners.{player}.gpus_per_rank", learner.gpus_per_rank),
    ):
        if gpus == 0:
            return f"needs a GPU on both sides, {name} is 0"
        if transport == "nccl" and gpus < 1:
            return f"needs a whole GPU for each process, {name} is {gpus:g}"
    if r.push.to == "spread":
        return "sends every version to all workers at once, push.to is spread"
    if transport == "ipc":
        if r.gpus > 1:
            return f"needs everything on one GPU, the recipe asks for {r.gpus:g}"
        if learner.ranks != 1:
            return f"needs one learner rank, learners.{player}.ranks is {learner.ranks}"
    return None
