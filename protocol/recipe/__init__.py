"""The recipe: every setting of a run, as strict pydantic models."""

from protocol.recipe.engines import (
    SET_HERE,
    BackpressureConfig,
    EngineConfig,
    GenerationConfig,
    JudgeSamplingConfig,
    SamplingConfig,
)
from protocol.recipe.judging import AlarmConfig, ApiConfig, JudgeConfig, ProbeConfig
from protocol.recipe.learning import LearnerConfig, LearnersConfig, LoraConfig, Loss, QuirksConfig, SftConfig
from protocol.recipe.observe import LogStyle, MlflowConfig, ObserveConfig, SinksConfig, TensorboardConfig, WandbConfig
from protocol.recipe.parse import parse_recipe
from protocol.recipe.pushing import DeadlinesConfig, PushConfig
from protocol.recipe.recipe import Recipe
from protocol.recipe.replaying import Order, ReplayConfig
from protocol.recipe.schema import GameConfig, HeldoutConfig, PromotionConfig, RunConfig
from protocol.recipe.sections import SANDBOX, Rule
from protocol.recipe.transport import Transport, hindrance_of
from protocol.recipe.workers import HealthConfig, RolloutConfig, RouterConfig

__all__ = [
    "SANDBOX",
    "SET_HERE",
    "AlarmConfig",
    "ApiConfig",
    "BackpressureConfig",
    "DeadlinesConfig",
    "EngineConfig",
    "GameConfig",
    "GenerationConfig",
    "HealthConfig",
    "HeldoutConfig",
    "JudgeConfig",
    "JudgeSamplingConfig",
    "LearnerConfig",
    "LearnersConfig",
    "LogStyle",
    "LoraConfig",
    "Loss",
    "MlflowConfig",
    "ObserveConfig",
    "Order",
    "ProbeConfig",
    "PromotionConfig",
    "PushConfig",
    "QuirksConfig",
    "Recipe",
    "ReplayConfig",
    "RolloutConfig",
    "RouterConfig",
    "Rule",
    "RunConfig",
    "SamplingConfig",
    "SftConfig",
    "SinksConfig",
    "TensorboardConfig",
    "Transport",
    "WandbConfig",
    "hindrance_of",
    "parse_recipe",
]
