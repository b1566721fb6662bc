"""The recipe: its sections, checked for contradictions."""

from typing import Self

from pydantic import model_validator

from protocol.recipe.consistency import contradictions
from protocol.recipe.schema import RecipeFields


class Recipe(RecipeFields):
    """All settings of a run; they do not contradict each other."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if found := list(contradictions(self)):
            raise ValueError("; and ".join(found))
        return self
