"""Parses a mapping into a `Recipe`, or raises one line that says what is wrong.

Strict: an unknown key is an error that names the nearest known one. Nothing is guessed, nothing silently ignored. It knows nothing
of files; `cluster.inputs.recipe_file` reads YAML.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from protocol.errors import UserError
from protocol.recipe.recipe import Recipe


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Checks a mapping against the schema.

    Raises:
        UserError: with every problem, separated by "; and ", on one line.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as e:
        raise UserError("; and ".join(_explain(error) for error in e.errors())) from None


def _explain(error: Any) -> str:
    """One pydantic error as: key, value, what is wrong, remedy."""
    loc = [str(part) for part in error["loc"]]
    key = ".".join(loc) or "recipe"
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_of(loc[:-1])
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        remedy = f"did you mean {'.'.join([*loc[:-1], near[0]])}?" if near else f"known keys: {', '.join(known)}"
        return f"{key}: unknown key; {remedy}"
    if kind == "value_error":
        return str(context["error"])
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    limits = {
        "greater_than_equal": ("is below {ge}", "set it to at least {ge}"),
        "greater_than": ("is not above {gt}", "set it above {gt}"),
        "less_than_equal": ("is above {le}", "set it to at most {le}"),
        "less_than": ("is not below {lt}", "set it below {lt}"),
        "literal_error": ("is none of {expected}", "pick one of them"),
    }
    if kind in limits:
        what, remedy = limits[kind]
        return f"{key}: {shown} {what.format(**context)}; {remedy.format(**context)}"
    return f"{key}: {shown}: {error['msg'][0].lower()}{error['msg'][1:]}; correct the value"


def _keys_of(parents: Sequence[str]) -> list[str]:
    """The keys that the section at `parents` knows."""
    model: type[BaseModel] = Recipe
    for parent in parents:
        below = model.model_fields[parent].annotation if parent in model.model_fields else None
        sections = [t for t in (below, *get_args(below)) if isinstance(t, type) and issubclass(t, BaseModel)]
        if not sections:
            return []
        model = sections[0]  # of `Section | None`, too
    return list(model.model_fields)
