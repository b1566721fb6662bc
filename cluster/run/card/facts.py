"""What a model card is made from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.plan.seed_set import SeedSet
from learners.storage.base import BaseModel
from protocol.recipe import SANDBOX, LoraConfig, Recipe
from protocol.roles import Player


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is made from.

    Attributes:
        lora: of a PEFT folder; None for a whole model.
        base: what training started from.
        train, heldout: the seeds.
        judge_id: as verdicts name the judge.
        judge_card: whether `judge_card.md` lies beside the card.
        summary: as `summary.json` holds it.
    """

    player: Player
    lora: LoraConfig | None
    base: BaseModel
    recipe: Recipe
    train: SeedSet
    heldout: SeedSet
    judge_id: str
    judge_card: bool
    summary: Mapping[str, Any]

    @property
    def sandbox(self) -> bool:
        """Whether the player is the embedded sandbox's."""
        return bool(getattr(self.recipe.models, self.player).path == SANDBOX)
