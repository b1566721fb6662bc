"""The rows that every side of the replay benchmark stores. Needs the standard library only."""

import random
from array import array
from typing import Any


def row_of(k: int, tokens: int) -> dict[str, Any]:
    """Row `k`'s payload, as a game leaves it: a prompt and two items of `tokens` tokens (int32), log-probabilities and text."""
    rng = random.Random(k)
    return {
        "prompt": array("i", range(16)),
        "ids": [array("i", [rng.randrange(30_000) for _ in range(tokens)]) for _ in range(2)],
        "logprobs": [array("f", [-rng.random() for _ in range(tokens)]) for _ in range(2)],
        "texts": ["word" * tokens, "text" * tokens],
    }
