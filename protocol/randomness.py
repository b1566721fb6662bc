"""One seed in the recipe; every other random choice derives from it.

A sample's seed is a function of (run seed, game id, move), so a game that is dealt again after a crash asks its
models the same questions with the same seeds, whoever plays it and whenever.
"""

import hashlib


def derive_seed(run_seed: int, *path: str | int) -> int:
    """A 31-bit seed for one place in the run.

    Args:
        run_seed: `run.seed` of the recipe.
        path: names the place, for example ``(game_id, "attack", 0)``. Order matters.

    Returns:
        An integer in [0, 2**31), the range that every library here accepts.
    """
    text = "/".join([str(run_seed), *(str(part) for part in path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
