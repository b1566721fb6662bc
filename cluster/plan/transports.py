"""Which way versions travel from a player's learner group to its generation workers.

    host   shared memory on a node, Ray's object store between nodes: always works
    nccl   GPU to GPU, through vLLM's own weight transfer; every process has a card of its own
    ipc    one card for everything: the workers read the learner's GPU memory

Pure arithmetic over the recipe. How it is done is in `publish.workers` (host) and `publish.native` (the other two).
"""

from typing import Literal

from cluster.plan.demand import demand_of
from cluster.plan.placement import place
from protocol.errors import UserError
from protocol.recipe import Recipe
from protocol.roles import Player

Transport = Literal["host", "nccl", "ipc"]


def transports_of(recipe: Recipe) -> dict[Player, Transport]:
    """The transport of each player that learns.

    Raises:
        UserError: the recipe asks for one that cannot work.
    """
    return {player: _transport(recipe, player) for player in recipe.trained}


def _transport(recipe: Recipe, player: Player) -> Transport:
    wanted = recipe.push.transport
    if wanted == "auto":
        return next((t for t in ("ipc", "nccl") if _hindrance(t, recipe, player) is None), "host")
    if wanted != "host" and (hindrance := _hindrance(wanted, recipe, player)) is not None:
        raise UserError(f"push.transport: {wanted} {hindrance}; set it to auto or host")
    return wanted


def _hindrance(transport: str, recipe: Recipe, player: Player) -> str | None:
    """Why it cannot work, in words that follow its name."""
    generation, learner = recipe.generation, recipe.learners.of(player)
    for key, gpus in (
        ("generation.gpus_per_worker", generation.gpus_per_worker),
        ("gpus_per_rank", learner.gpus_per_rank),
    ):
        name = key if "." in key else f"learners.{player}.{key}"
        if gpus == 0:
            return f"needs a GPU on both sides, {name} is 0"
        if transport == "nccl" and gpus < 1:
            return f"needs a whole GPU for each process, {name} is {gpus:g}"
    if recipe.push.to == "spread":
        return "sends every version to all workers at once, push.to is spread"
    if transport == "ipc":
        if (demand := demand_of(recipe, place(recipe)).gpus) > 1:
            return f"needs everything on one GPU, the recipe asks for {demand:g}"
        if learner.ranks != 1:
            return f"needs one learner rank, learners.{player}.ranks is {learner.ranks}"
    return None
