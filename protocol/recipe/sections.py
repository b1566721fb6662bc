"""The base of every section of a recipe: strict, frozen models, and the ranges of their fields."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]
Rule = Literal["default", "paper"]
SANDBOX = "sandbox"  # a path of this value means "the embedded sandbox's"


class Section(BaseModel):
    """Unknown keys are errors; a section never changes after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
