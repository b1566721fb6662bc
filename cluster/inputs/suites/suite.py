"""What a suite is, whatever file or package it came from."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from protocol.roles import Category


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a suite.

    Attributes:
        id: unique in its suite.
        prompt: what the model under test is sent.
        query: what the judge is shown as asked for: the plain ask where the prompt wraps one, else the prompt.
        category: what the model should do: decline (harmful) or answer (benign).
        topic: the suite's own category; "" where it has none.
    """

    id: str
    prompt: str
    query: str
    category: Category
    topic: str


@dataclass(frozen=True, slots=True)
class Suite:
    """Prompts in the order of their file.

    Attributes:
        name: unique among the suites of an evaluation.
        shape: as in `shapes.SHAPES`, or the package that it came from.
        dropped: rows that are no item, by reason.
    """

    name: str
    shape: str
    items: tuple[Item, ...]
    dropped: tuple[tuple[str, int], ...] = ()

    @property
    def digest(self) -> str:
        """Of its items: what was asked under one digest can be compared."""
        text = json.dumps([asdict(item) for item in self.items])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def limit(self, n: int | None) -> "Suite":
        """At most `n` items, spread evenly over the suite; all of them if `n` is None."""
        size = len(self.items)
        if n is None or n >= size:
            return self
        return replace(self, items=tuple(self.items[k * size // n] for k in range(n)))

    def as_dict(self) -> dict[str, Any]:
        """For `results.json`: all but the texts."""
        return {
            "name": self.name,
            "shape": self.shape,
            "digest": self.digest,
            "harmful": sum(item.category == "harmful" for item in self.items),
            "benign": sum(item.category == "benign" for item in self.items),
            "dropped": dict(self.dropped),
        }


def name_apart(suites: Sequence[Suite]) -> list[Suite]:
    """The same suites with names of their own: the second of a name is NAME-2."""
    seen: dict[str, int] = {}
    named = []
    for suite in suites:
        seen[suite.name] = seen.get(suite.name, 0) + 1
        count = seen[suite.name]
        named.append(suite if count == 1 else replace(suite, name=f"{suite.name}-{count}"))
    return named
