"""Reading seed files: JSONL of `{"prompt": text, "category": "harmful" | "benign"}`.

A bad line is counted and quarantined with its number and the reason, and the run goes on; a file without one good line is
the user's error. Seed texts never go into messages.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import UserError
from protocol.roles import CATEGORIES
from protocol.types import Seed


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no seed: its number (from 1) and why."""

    number: int
    reason: str


def _parse(line: str) -> Seed | str:
    """The seed of one line, or the reason that there is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(value, dict):
        return "no JSON object"
    prompt, category = value.get("prompt"), value.get("category")
    if not isinstance(prompt, str) or not prompt.strip():
        return "no text in `prompt`"
    if not isinstance(category, str) or category not in CATEGORIES:
        return f"category {json.dumps(category)[:40]} is neither of {', '.join(CATEGORIES)}"
    try:
        encoded = f"{category}\n{prompt}".encode()
    except UnicodeEncodeError:
        return "text that is no Unicode (a lone surrogate)"
    digest = hashlib.blake2b(encoded, digest_size=6).hexdigest()
    return Seed(id=f"{category[0]}-{digest}", text=prompt.strip(), category=category)


def read_seeds(path: Path, where: str) -> tuple[list[Seed], list[BadLine]]:
    """The seeds of a file, in order and without repeats, and its bad lines.

    Args:
        path: a JSONL file in UTF-8. Empty lines are skipped; a repeat of a seed is a bad line.
        where: the recipe's key, for messages.

    Raises:
        UserError: the file is missing, unreadable, or has no good line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{where}: {path} does not exist; give the path of a JSONL file of {{prompt, category}}"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{where}: {path} cannot be read ({type(e).__name__}); give a JSONL file in UTF-8") from None
    seeds: dict[str, Seed] = {}
    bad: list[BadLine] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
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
