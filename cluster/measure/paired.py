"""Two models on the same prompts: McNemar's exact test, and the mean change with a bootstrap over the prompts.

Pure. Pairing is what makes it sensitive: a prompt that both models treat alike says nothing about their difference, and prompts
differ far more than models do. Sources: McNemar (1947), the exact form as a two-sided binomial test of the discordant pairs.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cluster.measure.intervals import Interval, bootstrap


@dataclass(frozen=True, slots=True)
class Paired:
    """A comparison of two models, in prompts that count for both.

    Attributes:
        n: prompts in the test.
        only_target, only_against: prompts that are a hit of one model and not of the other.
        p: of McNemar's exact test, two-sided; 1.0 where no prompt differs.
        n_change: prompts in the change.
        change: of the mean rate, target minus against, with its interval; None for fewer than two prompts.
    """

    n: int
    only_target: int
    only_against: int
    p: float
    n_change: int
    change: Interval | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's exact test.

    Args:
        only_first, only_second: pairs in which only the one, or only the other, is a hit.

    Raises:
        ValueError: a count is below 0.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"{only_first} and {only_second} are no counts")
    n, fewer = only_first + only_second, min(only_first, only_second)
    below = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * below / 2**n)


def compare(
    hits_target: Mapping[str, bool],
    hits_against: Mapping[str, bool],
    rates_target: Mapping[str, float],
    rates_against: Mapping[str, float],
) -> Paired:
    """Compares two models. Prompts that only one of them has are left out.

    Args:
        hits_target, hits_against: by prompt, whether it is a hit: the test is about these.
        rates_target, rates_against: by prompt, the share of its attempts that are hits: the change is that of their means.
    """
    both = sorted(hits_target.keys() & hits_against.keys())
    only_target = sum(hits_target[k] and not hits_against[k] for k in both)
    only_against = sum(hits_against[k] and not hits_target[k] for k in both)
    rated = sorted(rates_target.keys() & rates_against.keys())
    moved = np.array([rates_target[k] - rates_against[k] for k in rated])
    change = bootstrap(len(moved), lambda at: float(moved[at].mean()))
    return Paired(len(both), only_target, only_against, mcnemar(only_target, only_against), len(rated), change)
