"""Which way versions travel from a player's learner group to its generation workers.

    host   shared memory on a node, Ray's object store between nodes: always works
    nccl   GPU to GPU, through vLLM's own weight transfer; every process has a card of its own
    ipc    one card for everything: the workers read the learner's GPU memory

Pure. How it is done is in `publish.workers` (host) and `publish.native` (the other two).
"""

from protocol.recipe import Recipe, Transport, hindrance_of
from protocol.roles import Player


def transports_of(recipe: Recipe) -> dict[Player, Transport]:
    """The transport of each player that learns. One that is asked for by name works: the recipe was checked for that."""
    return {player: _choose(recipe, player) for player in recipe.trained}


def _choose(recipe: Recipe, player: Player) -> Transport:
    wanted = recipe.push.transport
    if wanted != "auto":
        return wanted
    fast: tuple[Transport, ...] = ("ipc", "nccl")
    return next((transport for transport in fast if hindrance_of(transport, recipe, player) is None), "host")
