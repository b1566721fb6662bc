"""Which sinks a run's numbers go to, and what they are told about its recipe. Pure; `cluster.observe.sinks` writes to them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from protocol.recipe import Recipe, SinksConfig

Fact = str | int | float | bool

# What runs are compared by. Left out: where things lie, endpoints, and how this run is watched.
SECTIONS = ("mode", "synchronous", "quirks", "game", "sampling", "rollout", "replay", "learners", "push", "heldout")
ELSEWHERE = ("path", "dir", "file")  # keys that name a place on this machine


@dataclass(frozen=True, slots=True)
class SinksPlan:
    """Attributes:
    facts: of the recipe, by their keys: numbers, switches and words, no paths.
    """

    config: SinksConfig
    facts: Mapping[str, Fact]


def plan_sinks(recipe: Recipe) -> SinksPlan:
    """From a checked recipe."""
    names: dict[str, Fact] = {
        "models.attacker": Path(recipe.models.attacker.path).name,
        "models.defender": Path(recipe.models.defender.path).name,
        "judge.kind": recipe.judge.kind,
        "judge.form": recipe.judge.form,
        "run.seed": recipe.run.seed,
        "run.steps": recipe.run.steps,
    }
    return SinksPlan(recipe.observe.sinks, names | dict(_facts(recipe)))


def _facts(recipe: Recipe) -> Iterator[tuple[str, Fact]]:
    for name in SECTIONS:
        yield from _flatten(name, getattr(recipe, name))


def _flatten(key: str, value: object) -> Iterator[tuple[str, Fact]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            if name not in ELSEWHERE:
                yield from _flatten(f"{key}.{name}", getattr(value, name))
    elif isinstance(value, Fact):
        yield key, value
    elif isinstance(value, tuple | list):
        yield key, ", ".join(str(part) for part in value)
