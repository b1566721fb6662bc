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
        judge: "run" is the run's own, "rules" the sandbox's exact one, "match" the one without a model.
        samples: attacks on each held-out seed.
        sampling: of both players while they are measured.
        unjudged_limit: share of the attacks that the judge may fail on before the first game; None: it is meant to fail.
        every: learner steps between two measurements of a share while the run learns; 0: none, because the recipe says so or
            because there would be nothing to see: the Defender is frozen, or the judge is meant to fail.
        share: of the attacks that are measured then; `deadline_s`: for one such measurement, seconds.
        at_once: attacks that are asked about at any moment of it.
    """

    rules: GameRules
    judge: Literal["run", "rules", "match"]
    samples: int
    sampling: Sampling
    unjudged_limit: float | None
    every: int
    share: float
    deadline_s: float
    at_once: int


# Beside the games: an eighth of what they have in flight is asked about at once. More would take engines from them, fewer would
# spread a score over many versions (with a sixteenth, 64 attacks took the sandbox 8 to 20 s, six steps and more). Below two, one
# slow answer would hold everything up.
_BESIDE, _AT_LEAST = 8, 2


def plan_heldout(recipe: Recipe) -> HeldoutPlan:
    """As a recipe says."""
    h = recipe.heldout
    fails = recipe.judge.kind == "none"
    moves = recipe.learners.defender.train and not (fails and h.judge == "run")
    return HeldoutPlan(
        rules=GameRules.of(recipe),
        judge=h.judge,
        samples=h.samples,
        sampling=Sampling(h.temperature, h.top_p, recipe.sampling.max_new_tokens, recipe.sampling.seeded),
        unjudged_limit=None if fails else recipe.judge.alarm.failure_rate,
        every=h.every if moves else 0,
        share=h.share,
        deadline_s=h.deadline_s,
        at_once=max(_AT_LEAST, recipe.game.in_flight // _BESIDE),
    )
