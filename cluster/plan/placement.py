"""Which part of a run gets which bundle of a placement group. Pure arithmetic over the recipe and the nodes' sizes.

Every part has a bundle of its own, found by its role and by nothing else: their order means nothing. Services, engines and judges
share one group. The ranks of a learner group have a group of their own, a placeholder: Ray Train places them itself, so it is
reserved to prove that they fit, and given back just before Train asks for the same nodes (`run.reserve`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from protocol.recipe import Recipe
from protocol.roles import PLAYERS, Player

REPLAY, PUBLISHER = "replay-0", "publisher-0"

ROLLOUT_CPUS = 0.1  # each; mostly waits
SERVICE_CPUS = 0.05  # replay, publisher: each


def generation_role(player: Player, k: int) -> str:
    """The role of a player's k-th generation worker."""
    return f"generation-{player}-{k}"


def judge_role(k: int) -> str:
    """The role of the k-th judge worker."""
    return f"judge-{k}"


def rollout_role(k: int) -> str:
    """The role of the k-th rollout worker."""
    return f"rollout-{k}"


def rank_role(player: Player, rank: int) -> str:
    """The role of one learner rank."""
    return f"learner-{player}-{rank}"


Strategy = Literal["PACK", "STRICT_PACK"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one part asks of the node that it is on, in Ray's units; fractions are allowed."""

    role: str
    cpus: float
    gpus: float = 0.0

    def resources(self) -> dict[str, float]:
        """As a placement group takes it."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}


@dataclass(frozen=True, slots=True)
class Placement:
    """The bundles of a run, one for each role.

    Attributes:
        bundles: of one placement group: services, engines, judges.
        learners: the ranks of each player that learns; each player's are a placement group.

    Raises:
        ValueError: a role has two bundles.
    """

    bundles: tuple[Bundle, ...]
    learners: Mapping[Player, tuple[Bundle, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roles = [bundle.role for bundle in (*self.bundles, *(b for ranks in self.learners.values() for b in ranks))]
        if len(set(roles)) != len(roles):
            raise ValueError(f"a role has two bundles: {roles}")

    def index_of(self, role: str) -> int:
        """The bundle of a role. Raises `KeyError` if it has none."""
        return {bundle.role: index for index, bundle in enumerate(self.bundles)}[role]


def place(recipe: Recipe) -> Placement:
    """The bundles of a run: services, engines of both players, judges, rollout, and the learners' ranks."""
    g, j = recipe.generation, recipe.judge
    learners = {player: recipe.learners.of(player) for player in recipe.trained}
    return Placement(
        (
            Bundle(REPLAY, SERVICE_CPUS),
            Bundle(PUBLISHER, SERVICE_CPUS),
            *(
                Bundle(generation_role(player, k), g.cpus_per_worker, g.gpus_per_worker)
                for player in PLAYERS
                for k in range(g.workers)
            ),
            *(Bundle(judge_role(k), j.cpus_per_worker, j.gpus_per_worker) for k in range(j.workers)),
            *(Bundle(rollout_role(k), ROLLOUT_CPUS) for k in range(recipe.rollout.workers)),
        ),
        {
            player: tuple(Bundle(rank_role(player, k), c.cpus_per_rank, c.gpus_per_rank) for k in range(c.ranks))
            for player, c in learners.items()
        },
    )


@dataclass(frozen=True, slots=True)
class NodeSize:
    """What a node has in all, in Ray's units."""

    cpus: float
    gpus: float


def choose_strategy(bundles: Sequence[Bundle], nodes: Sequence[NodeSize]) -> Strategy:
    """How a learner group's bundles are placed: on one node, if one is large enough for all of them; else on as few as possible.

    On one node its gathers stay off the network: a group that could have been whole is never split in silence.
    """
    cpus, gpus = sum(b.cpus for b in bundles), sum(b.gpus for b in bundles)
    whole = any(node.cpus + 1e-6 >= cpus and node.gpus + 1e-6 >= gpus for node in nodes)
    return "STRICT_PACK" if whole else "PACK"
