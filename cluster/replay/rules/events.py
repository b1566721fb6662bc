"""The events of the replay buffer's journal: names and fields. `store.journal` says what they mean, `store.recovery` acts on them.

An event is what one line of JSON holds, so here, at the edge where it is written and read, it is a dict.
"""

from typing import Any

Event = dict[str, Any]  # `e` is its name

FIELDS: dict[str, frozenset[str]] = {
    "finish": frozenset({"id", "category", "rows", "attack", "response", "judge", "judge_failed"}),
    "abandon": frozenset({"id", "why"}),
    "evict": frozenset({"p", "why", "games"}),
    "lease": frozenset({"p", "step", "version", "games"}),
    "seen": frozenset({"p", "step", "version"}),
    "ack": frozenset({"p", "step"}),
    "rewind": frozenset({"p", "step"}),
    "finished": frozenset({"p"}),
    "alarm": frozenset(),
    "calm": frozenset({"s"}),
    "lost": frozenset({"p", "rows", "at_least", "games"}),
}


def is_known(event: Event) -> bool:
    """Whether this version knows the event and finds all its fields in it."""
    fields = FIELDS.get(event.get("e", ""))
    return fields is not None and fields <= event.keys()
