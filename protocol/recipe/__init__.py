"""The recipe: everything a run can be told, as strict pydantic models."""

from protocol.recipe.engines import EngineConfig, GenerationConfig, SamplingConfig
from protocol.recipe.judging import AlarmConfig, ApiConfig, JudgeConfig, ProbeConfig
from protocol.recipe.learning import LearnerConfig, LearnersConfig, QuirksConfig, SftConfig
from protocol.recipe.parse import parse_recipe
from protocol.recipe.schema import (
    GameConfig,
    HeldoutConfig,
    PromotionConfig,
    PushConfig,
    Recipe,
    ReplayConfig,
    RunConfig,
)
from protocol.recipe.sections import SANDBOX, Rule

__all__ = [
    "SANDBOX",
    "AlarmConfig",
    "ApiConfig",
    "EngineConfig",
    "GameConfig",
    "GenerationConfig",
    "HeldoutConfig",
    "JudgeConfig",
    "LearnerConfig",
    "LearnersConfig",
    "ProbeConfig",
    "PromotionConfig",
    "PushConfig",
    "QuirksConfig",
    "Recipe",
    "ReplayConfig",
    "Rule",
    "RunConfig",
    "SamplingConfig",
    "SftConfig",
    "parse_recipe",
]
