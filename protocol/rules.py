"""What a game is played by: sections of the recipe, and what follows from several of them together."""

from dataclasses import dataclass
from typing import Self

from protocol.recipe import GameConfig, Recipe
from protocol.types import Sampling


@dataclass(frozen=True, slots=True)
class GameRules:
    """The rules of every game of a run (GAME.md 1-3).

    Attributes:
        seed: `run.seed`, which every sampling seed derives from.
        sampling: of both players.
        pointwise: the judge scores one item at a time; else it compares pairs.
        both_orders: every pair is judged in both orders.
    """

    seed: int
    game: GameConfig
    sampling: Sampling
    pointwise: bool
    both_orders: bool

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """A recipe's."""
        s = recipe.sampling
        sampling = Sampling(s.temperature, s.top_p, s.max_new_tokens, s.seeded)
        return cls(recipe.run.seed, recipe.game, sampling, recipe.judge.form == "pointwise", recipe.both_orders)
