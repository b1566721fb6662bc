"""The recipe: everything a run can be told, as strict pydantic models."""

from protocol.recipe.parse import parse_recipe
from protocol.recipe.schema import (
    GameConfig,
    GenerationConfig,
    HeldoutConfig,
    JudgeConfig,
    LearnerConfig,
    PushConfig,
    Recipe,
    ReplayConfig,
    RunConfig,
    SamplingConfig,
)

__all__ = [
    "GameConfig",
    "GenerationConfig",
    "HeldoutConfig",
    "JudgeConfig",
    "LearnerConfig",
    "PushConfig",
    "Recipe",
    "ReplayConfig",
    "RunConfig",
    "SamplingConfig",
    "parse_recipe",
]
