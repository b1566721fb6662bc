"""The recipe as a model card shows it: all that bears on the model, and nothing of the machine that it ran on. Pure."""

import hashlib
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from protocol.recipe import Recipe


def portable_recipe(recipe: Recipe) -> str:
    """The recipe in YAML, with file names for paths, and without `observe` and what is secret in addresses."""
    values = recipe.model_dump(mode="json")
    del values["observe"]  # where numbers went; it may name a team's own servers
    text: str = yaml.safe_dump(_portable(values), sort_keys=False)
    return text


def digest_recipe(text: str) -> str:
    """SHA-256 of what `portable_recipe` gave."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_name(path: str) -> str:
    """The last part of a path; a name that is none, like `sandbox`, as it is."""
    return PurePosixPath(path).name or path


def _portable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~", "./", "../")):
        return file_name(value)
    if "://" in value:
        address = urlsplit(value)
        if address.scheme == "file":
            return file_name(address.path)
        return address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return value
