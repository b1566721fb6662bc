"""What may be said of a set of seeds without showing one: how many there are, and which. Pure."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.types import Seed


@dataclass(frozen=True, slots=True)
class SeedSet:
    """A set of seeds.

    Attributes:
        digest: SHA-256 of their ids, sorted, one a line. An id is a digest of a seed's category and text, so that this one is the
            same for the same seeds in any order, whatever the file.
    """

    harmful: int
    benign: int
    digest: str

    @staticmethod
    def of(seeds: Sequence[Seed]) -> "SeedSet":
        counts = Counter(seed.category for seed in seeds)
        ids = "".join(f"{seed_id}\n" for seed_id in sorted(seed.id for seed in seeds))
        return SeedSet(counts["harmful"], counts["benign"], hashlib.sha256(ids.encode()).hexdigest())
