"""Files of one JSON object a line, as people have them: seeds, labels, demonstrations.

A byte order mark (Windows writes one, and `cat` carries it into the middle) is no part of a line, an empty line is no line, and a
line of any content is an object or a reason of ours: no line raises. Reasons never quote a text.
"""

import json
from pathlib import Path
from typing import Any

_BOM = "\ufeff"
SHOWN = 40  # characters of a name or value in a message


class _RepeatedField(ValueError):
    pass


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines with something in them, and their numbers from 1.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is no UTF-8, or `path` is no path.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    return [(number, line) for number, line in enumerate((line.strip(_BOM) for line in lines), 1) if line.strip()]


def parse_object(line: str) -> dict[str, Any] | str:
    """The object of one line, or the reason that there is none. A field twice is one: a value would be lost."""
    try:
        value = json.loads(line.lstrip(_BOM), object_pairs_hook=_refuse_repeats)
    except _RepeatedField as repeated:
        return f"field {repeated} stands in it twice"
    except (ValueError, RecursionError):
        return "no JSON"
    return value if isinstance(value, dict) else "no JSON object"


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _RepeatedField(shorten(name))
        found[name] = value
    return found


def shorten(value: Any) -> str:
    """A name or value as a message shows it: JSON, of `SHOWN` characters at most, in ASCII and on one line."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def is_unicode(text: str) -> bool:
    """Whether it can be written at all: a lone surrogate, which JSON's escapes can spell, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
