"""The recipe: everything a run can be told, as strict pydantic models, and how a YAML file becomes one."""

from protocol.recipe.load import load_recipe, parse_recipe
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
    "load_recipe",
    "parse_recipe",
]
