"""What the held-out measurements are made by. Pure; `cluster.measure` makes them."""

from dataclasses import dataclass
from typing import Literal

from protocol.recipe import Recipe
from protocol.rules import GameRules
from protocol.types import Sampling


@dataclass(frozen=True, slots=True)
class HeldoutPlan:
    """How the trained players are measured.

    Attributes:
        rules: of the games; formats, prompts and the seed are theirs.
        judge: "run" is the run's own, "rules" the sandbox's exact one.
        samples: attacks on each held-out seed.
        sampling: of both players while they are measured.
        unjudged_limit: share of the attacks that the judge may fail on before the first game; None: it is meant to fail.
    """

    rules: GameRules
    judge: Literal["run", "rules"]
    samples: int
    sampling: Sampling
    unjudged_limit: float | None


def plan_heldout(recipe: Recipe) -> HeldoutPlan:
    """As a recipe says."""
    h = recipe.heldout
    return HeldoutPlan(
        rules=GameRules.of(recipe),
        judge=h.judge,
        samples=h.samples,
        sampling=Sampling(h.temperature, h.top_p, recipe.sampling.max_new_tokens, recipe.sampling.seeded),
        unjudged_limit=None if recipe.judge.kind == "none" else recipe.judge.alarm.failure_rate,
    )
