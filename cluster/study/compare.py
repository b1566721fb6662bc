"""From runs to statements: means over seeds, differences paired by seed, the Pareto front. Pure.

Every interval is a 95 % Student-t interval over seeds (`intervals`): it speaks of another draw of seeds on this sandbox, and of
nothing else. Differences are paired by seed, because runs of one seed share held-out attacks, games' seeds and sampling seeds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.measure.intervals import Interval, t_interval
from cluster.study.figures import COMPLIANCE, Metric, Study, values_by_seed
from cluster.study.variants import Claim

Direction = Literal["lower", "higher", "open"]
Outcome = Literal["agrees", "contradicts", "open"]


def mean_of(values: Sequence[float]) -> Interval | None:
    """The mean over seeds; unbounded with one seed, None without any."""
    if not values:
        return None
    if len(values) == 1:
        return Interval(values[0], -math.inf, math.inf)
    return t_interval(values)


def mean_over_seeds(study: Study, variant: str, metric: Metric) -> Interval | None:
    """A variant's metric over the seeds that have it."""
    return mean_of(list(values_by_seed(study.counted(variant), metric).values()))


@dataclass(frozen=True, slots=True)
class Difference:
    """`of` minus `against`, paired by seed."""

    metric: Metric
    of: str
    against: str
    seeds: int
    interval: Interval

    @property
    def direction(self) -> Direction:
        """Whether `of` is lower or higher, or open: the interval includes 0."""
        if self.interval.high < 0:
            return "lower"
        return "higher" if self.interval.low > 0 else "open"


def difference(study: Study, metric: Metric, of: str, against: str) -> Difference | None:
    """None where the two share no seed."""
    left, right = (values_by_seed(study.counted(name), metric) for name in (of, against))
    return paired_difference(metric, of, against, left, right)


def paired_difference(
    metric: Metric, of: str, against: str, left: Mapping[int, float], right: Mapping[int, float]
) -> Difference | None:
    """The mean of `left - right` over the seeds that both have."""
    shared = sorted(left.keys() & right.keys())
    interval = mean_of([left[seed] - right[seed] for seed in shared])
    return None if interval is None else Difference(metric, of, against, len(shared), interval)


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A claim of the paper, and the difference measured here."""

    claim: Claim
    difference: Difference  # worse minus better: positive where the claim holds

    @property
    def outcome(self) -> Outcome:
        """`open` where the interval includes 0: these seeds do not decide it."""
        outcomes: dict[Direction, Outcome] = {"higher": "agrees", "lower": "contradicts", "open": "open"}
        return outcomes[self.difference.direction]


def check_claims(claims: Sequence[Claim], minus: Callable[[str, str], Difference | None]) -> list[CheckedClaim]:
    """Each claim about variants that share a seed; `minus(a, b)` is the difference of their attack success, a minus b."""
    found = [(claim, minus(claim.worse, claim.better)) for claim in claims]
    return [CheckedClaim(claim, diff) for claim, diff in found if diff is not None]


@dataclass(frozen=True, slots=True)
class Place:
    """A variant's place in the figure."""

    variant: str
    attack_success: float
    benign_compliance: float


def pareto_front(places: Sequence[Place]) -> list[Place]:
    """The places that no other dominates, in the order of their attack success.

    One place dominates another if its attack success is at most as high, its compliance at least as high, and one of them differs.
    """
    front = [
        place
        for place in places
        if not any(
            other.attack_success <= place.attack_success
            and other.benign_compliance >= place.benign_compliance
            and (other.attack_success, other.benign_compliance) != (place.attack_success, place.benign_compliance)
            for other in places
        )
    ]
    return sorted(front, key=lambda p: (p.attack_success, p.benign_compliance))


def places(study: Study, variants: Sequence[str], metric: Metric) -> list[Place]:
    """The variants' means: `metric` (an attack success) against benign compliance."""
    found = []
    for variant in variants:
        success, compliance = (mean_over_seeds(study, variant, m) for m in (metric, COMPLIANCE))
        if success is not None and compliance is not None:
            found.append(Place(variant, success.value, compliance.value))
    return found


def _starts(study: Study, key: str) -> dict[int, list[float]]:
    """The held-out fraction before training, of every run that counts, by seed."""
    found: dict[int, list[float]] = {}
    for run in study.runs:
        value = run.value(Metric(key, "start", ""))
        if run.counts and value is not None:
            found.setdefault(run.seed, []).append(value)
    return found


def start_by_seed(study: Study, key: str) -> dict[int, float]:
    """Before training, a mean for each seed: its runs all measure the same two models, so they are not independent."""
    return {seed: sum(values) / len(values) for seed, values in _starts(study, key).items()}


def start_spread(study: Study, key: str) -> float:
    """The largest difference of the value before training between runs of one seed; 0 if they all measured the same."""
    return max((max(values) - min(values) for values in _starts(study, key).values()), default=0.0)
