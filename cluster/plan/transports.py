"""Which way versions travel from a player's learner group to its generation workers.

    host   shared memory on a node, one copy to each other node: always works, and is what `auto` takes
    nccl   GPU to GPU, through vLLM's own weight transfer; every process has a card of its own
    ipc    one card for everything: the workers read the learner's GPU memory

Pure. How it is done is in `publish.workers` (host) and `publish.native` (the other two).
"""

from protocol.recipe import Recipe, Transport
from protocol.roles import Player


def transports_of(recipe: Recipe) -> dict[Player, Transport]:
    """The transport of each player that learns. One that is asked for by name can work: the recipe was checked for that."""
    wanted = recipe.push.transport
    return dict.fromkeys(recipe.trained, "host" if wanted == "auto" else wanted)
