"""Recipes in the method section: the baseline's settings, and what each variant changes. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from protocol.recipe import Recipe

NAMED = (
    "run.steps",
    "game.attacks",
    "game.responses",
    "sampling.temperature",
    "replay.max_staleness",
    "learners.attacker.lr",
    "learners.defender.lr",
    "learners.defender.batch_games",
    "learners.defender.beta",
    "learners.defender.ema_decay",
    "heldout.samples",
    "heldout.temperature",
)


def settings_of(recipe: Recipe) -> dict[str, str]:
    """The `NAMED` keys and their values."""
    values = dict(_flatten(recipe.model_dump(mode="json")))
    return {key: str(values[key]) for key in NAMED}


def changes_of(recipe: Recipe, baseline: Recipe) -> dict[str, str]:
    """The keys to which `recipe` gives another value, except those of `run` (its folder, its name)."""
    mine, theirs = (dict(_flatten(r.model_dump(mode="json"))) for r in (recipe, baseline))
    return {key: str(value) for key, value in mine.items() if value != theirs[key] and key.partition(".")[0] != "run"}


def _flatten(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
