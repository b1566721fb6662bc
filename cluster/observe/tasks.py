"""Where an event loop's tasks wait: what a stack of its thread does not show, because a task that waits is on no thread.

Tasks that wait at the same place are one entry with their number: 64 games that wait for one engine read as one line of 64.
Files, lines and functions only, no values.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from types import CodeType
from typing import Any

DEEPEST = 40  # awaits; a chain that is longer is cut
KINDS = {"cr": "cr_await", "gi": "gi_yieldfrom", "ag": "ag_await"}  # coroutines, generators, asynchronous generators


def describe_tasks() -> str:
    """The tasks of the running loop but the one that asks, the most frequent first."""
    asking = asyncio.current_task()
    chains = Counter(tuple(follow(task.get_coro())) for task in asyncio.all_tasks() if task is not asking)
    entries = [f"{n} x\n" + "\n".join(f"    {line}" for line in chain) for chain, n in chains.most_common()]
    return "\n".join(entries) or "no tasks"


def follow(coroutine: Any) -> Iterator[str]:
    """A suspended coroutine's place, and those of what it awaits, the innermost last.

    Ray's own coroutines are compiled and have no place; what they await, a method of ours, has. Compiled ones await through a
    wrapper that tells nobody what is in it but the garbage collector.
    """
    for _ in range(DEEPEST):
        if type(coroutine).__name__ == "coroutine_wrapper":
            coroutine = next(iter(gc.get_referents(coroutine)), None)
        kind = next((kind for kind in KINDS if hasattr(coroutine, KINDS[kind])), None)
        if kind is None:
            return
        code, frame = getattr(coroutine, f"{kind}_code", None), getattr(coroutine, f"{kind}_frame", None)
        if isinstance(code, CodeType) and frame is not None:
            yield f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}"
        coroutine = getattr(coroutine, KINDS[kind])
