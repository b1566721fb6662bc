"""Which part of a run gets which bundle of the placement group. Pure arithmetic over the recipe.

Every part but the learner ranks has a bundle of its own, found by its role and by nothing else: their order means
nothing. Ray Train places the learner ranks itself, so they are counted in `demand` and have no bundle.
"""

from dataclasses import dataclass

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
    """The bundles of one placement group, one for each role.

    Raises:
        ValueError: a role has two bundles.
    """

    bundles: tuple[Bundle, ...]

    def __post_init__(self) -> None:
        if len({bundle.role for bundle in self.bundles}) != len(self.bundles):
            raise ValueError(f"a role has two bundles: {[bundle.role for bundle in self.bundles]}")

    def index_of(self, role: str) -> int:
        """The bundle of a role. Raises `KeyError` if it has none."""
        return {bundle.role: index for index, bundle in enumerate(self.bundles)}[role]


def place(recipe: Recipe) -> Placement:
    """The bundles of a run: services, engines of both players, judges, rollout."""
    g, j = recipe.generation, recipe.judge
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
        )
    )
