"""95 % intervals: of a fraction, of the change of a fraction, of a mean over a few seeds, and of any statistic of items.

Pure. It does not know what is measured. Sources: Wilson (1927); Newcombe (1998), method 10; Student's t from its closed
form for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4); Efron's percentile bootstrap.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
Z = 1.959963984540054  # the normal quantile at 0.975
RESAMPLES = 2000  # moves a percentile bound by about 1 % of the interval's width from seed to seed

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def wilson(hits: float, n: float) -> Interval:
    """A fraction of `n` independent trials. Both may be fractional, where dependent trials count as fewer.

    Raises:
        ValueError: `n` is 0, or `hits` is not in 0..n.
    """
    if n <= 0 or not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} trials are no fraction")
    p = hits / n
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    # At 0 and n hits the bound is exactly 0 or 1; rounding must not leave the estimate outside.
    return Interval(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))


def newcombe(hits_before: float, n_before: float, hits_after: float, n_after: float) -> Interval:
    """The change of a fraction, after minus before, between two independent samples.

    Raises:
        ValueError: as `wilson`.
    """
    before, after = wilson(hits_before, n_before), wilson(hits_after, n_after)
    change = after.value - before.value
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Interval(change, max(-1.0, change - down), min(1.0, change + up))


def bootstrap(n: int, statistic: Callable[[Places], float | None], seed: int = 0) -> Interval | None:
    """Any statistic of `n` items, by resampling the items.

    Args:
        statistic: from the places of the items (int64, length n, in 0..n-1, with repeats) to a number, or None where those
            items leave it undefined; such resamples are left out.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        None where the statistic is undefined on the items themselves, and for fewer than two items: one has no spread.
    """
    value = statistic(np.arange(n)) if n > 1 else None
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    known = [x for x in drawn if x is not None]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if known else (value, value)
    return Interval(value, float(low), float(high))


def t_interval(values: Sequence[float]) -> Interval:
    """The mean of a few independent measurements (one a seed, say).

    Raises:
        ValueError: fewer than two values, which have no spread.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} values give no interval of a mean; at least 2 are needed")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1))
    half = t_quantile((1 + CONFIDENCE) / 2, n - 1) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def t_quantile(p: float, df: int) -> float:
    """The value that Student's t with `df` degrees of freedom stays below with probability `p`, 0.5 <= p < 1.

    Raises:
        ValueError: outside these ranges.
    """
    if not 0.5 <= p < 1.0 or df < 1:
        raise ValueError(f"t_quantile({p}, {df}): p must be in [0.5, 1) and df at least 1")
    low, high = 0.0, math.pi / 2  # of the angle atan(t / sqrt(df)), in which the distribution is a finite sum
    for _ in range(100):
        middle = (low + high) / 2
        if (1 + _within(middle, df)) / 2 < p:
            low = middle
        else:
            high = middle
    return math.sqrt(df) * math.tan(low)


def _within(angle: float, df: int) -> float:
    """P(|T| < sqrt(df) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    if df == 1:
        return 2 * angle / math.pi
    term = cosine if odd else 1.0
    total = term
    for k in range(3 if odd else 2, df - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
