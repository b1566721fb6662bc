"""Reading seed files: JSONL of `{"prompt": text, "category": "harmful" | "benign"}`.

A bad line is counted and quarantined with its number and the reason, and the run goes on; a file without one good line is
the user's error. Seed texts never go into messages.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import UserError
from protocol.jsonl import is_unicode, parse_object, read_lines, shorten
from protocol.roles import CATEGORIES
from protocol.texts import has_text, strip_outer
from protocol.types import Seed


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no seed: its number (from 1) and why."""

    number: int
    reason: str


def _parse(line: str) -> Seed | str:
    """The seed of one line, or the reason that there is none."""
    value = parse_object(line)
    if isinstance(value, str):
        return value
    prompt, category = value.get("prompt"), value.get("category")
    if not isinstance(prompt, str) or not has_text(prompt):
        return "no text in `prompt`"
    if not isinstance(category, str) or category not in CATEGORIES:
        return f"category {shorten(category)} is neither of {', '.join(CATEGORIES)}"
    if not is_unicode(prompt):
        return "text that is no Unicode (a lone surrogate)"
    text = strip_outer(prompt)  # before the id, so that what differs in nothing else is a repeat
    digest = hashlib.blake2b(f"{category}\n{text}".encode(), digest_size=6).hexdigest()
    return Seed(id=f"{category[0]}-{digest}", text=text, category=category)


def read_seeds(path: Path, where: str) -> tuple[list[Seed], list[BadLine]]:
    """The seeds of a file, in order and without repeats, and its bad lines.

    Args:
        path: a JSONL file in UTF-8. Empty lines are skipped. A repeat of a seed is a bad line, also where it
            differs in outer white space.
        where: the recipe's key, for messages.

    Raises:
        UserError: the file is missing, unreadable, or has no good line.
    """
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        raise UserError(
            f"{where}: {path} does not exist; give the path of a JSONL file of {{prompt, category}}"
        ) from None
    except (OSError, ValueError) as e:
        raise UserError(f"{where}: {path} cannot be read ({type(e).__name__}); give a JSONL file in UTF-8") from None
    seeds: dict[str, Seed] = {}
    bad: list[BadLine] = []
    for number, line in lines:
        parsed = _parse(line)
        if isinstance(parsed, str):
            bad.append(BadLine(number, parsed))
        elif parsed.id in seeds:
            bad.append(BadLine(number, "repeats an earlier line"))
        else:
            seeds[parsed.id] = parsed
    if not seeds:
        first = f"; line {bad[0].number}: {bad[0].reason}" if bad else ""
        raise UserError(f"{where}: {path} has no seed in it ({len(bad)} bad lines{first}); give at least one seed")
    return list(seeds.values()), bad
