"""What the folder that training started from says of itself: its name where others know it, its license, its languages.

What it does not say stays unknown; nothing is guessed, and no path of this machine is given on. Loads nothing heavy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/[0-9a-f]+")  # how the hub's client names what it keeps
_FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_REPOSITORY = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
HEAD = 200  # characters of a license's text in which its name stands
_LICENSE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The model that training started from.

    Attributes:
        name: the hub's, ORGANISATION/MODEL, where the folder is of the hub's cache; else the folder's own.
        ancestor: the published model that it was itself made from, as its own card says; "" if that is not known.
        license: `license`, `license_name` and `license_link` of its card, those that are there; without them, of the license's
            text that lies in the folder.
        languages: of its card.
    """

    name: str
    ancestor: str = ""
    license: Mapping[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()

    @property
    def published(self) -> str:
        """What others can find: the model itself, or what it was made from; "" if neither is known."""
        return self.name if "/" in self.name else self.ancestor


def read_base(folder: Path) -> BaseModel:
    """Reads a model folder's path and the front matter of its README.md. A folder that is gone has its name left."""
    cached = _CACHED.search(folder.as_posix())
    name = f"{cached[1]}/{cached[2]}" if cached else re.sub(r"[^\w.-]+", "-", folder.name)
    card = _front_matter(folder / "README.md")
    named = _texts(card.get("base_model"))
    ancestor = named[0] if len(named) == 1 and _REPOSITORY.fullmatch(named[0]) else ""
    license = {key: value for key in _LICENSE_KEYS if isinstance(value := card.get(key), str)}
    if "license" not in license:  # a name or a link alone is refused by the hub
        license = _read_license(folder)
    return BaseModel(name, ancestor, license, _texts(card.get("language")))


def _read_license(folder: Path) -> dict[str, str]:
    """What the hub is to be told of the license whose text lies beside the weights, and is exported with them."""
    for file in sorted(folder.glob("LICENSE*")):
        head = " ".join(file.read_text(encoding="utf-8", errors="replace")[:HEAD].split())
        if head.startswith("Apache License Version 2.0, January 2004"):
            return {"license": "apache-2.0"}
        return {"license": "other", "license_name": "see-license-file", "license_link": file.name}
    return {}


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for text in values if isinstance(text, str))


def _front_matter(card: Path) -> Mapping[str, Any]:
    """A card's metadata; empty where there is none that can be read: then it says nothing."""
    try:
        found = _FRONT_MATTER.match(card.read_text(encoding="utf-8"))
        value = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
