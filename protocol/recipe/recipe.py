"""A recipe: its sections, and that they do not contradict each other."""

from typing import Self

from pydantic import model_validator

from protocol.recipe.consistency import contradictions
from protocol.recipe.schema import RecipeFields


class Recipe(RecipeFields):
    """A run, whole."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if found := list(contradictions(self)):
            raise ValueError("; and ".join(found))
        return self
