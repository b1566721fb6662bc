"""Means over cross-play: each Defender against one Attacker, and against the trained ones taken together. Pure."""

from cluster.measure.intervals import Interval
from cluster.study.compare import Difference, mean_of, paired_difference
from cluster.study.figures import BASE, Metric, Study


def attackers_of(study: Study) -> list[str]:
    """In the order they were played: the base attacker, then the trained ones."""
    return list(dict.fromkeys(f.attacker for f in study.faced))


def mean_success(study: Study, defender: str, attacker: str) -> Interval | None:
    """Attack success of one Attacker on one variant's Defender, over seeds."""
    games = [f for f in study.faced if (f.defender, f.attacker) == (defender, attacker)]
    return mean_of([s for s in (f.measured["attack_success"] for f in games) if s is not None])


def pooled_by_seed(study: Study, defender: str, metric: Metric) -> dict[int, float]:
    """The mean of the fraction over the trained Attackers, each with the same weight, by seed.

    Only seeds on which every trained Attacker of the study played: otherwise the opponents would differ from seed to seed.
    """
    trained = {a for a in attackers_of(study) if a != BASE}
    by_seed: dict[int, dict[str, float]] = {}
    for f in study.faced:
        value = f.measured[metric.key]
        if f.defender == defender and f.attacker in trained and value is not None:
            by_seed.setdefault(f.seed, {})[f.attacker] = value
    return {seed: sum(got.values()) / len(got) for seed, got in by_seed.items() if got.keys() == trained}


def pooled_mean(study: Study, defender: str, metric: Metric) -> Interval | None:
    """The mean of `pooled_by_seed` over seeds."""
    return mean_of(list(pooled_by_seed(study, defender, metric).values()))


def pooled_difference(study: Study, metric: Metric, of: str, against: str) -> Difference | None:
    """`of` minus `against`, paired by seed."""
    return paired_difference(
        metric, of, against, pooled_by_seed(study, of, metric), pooled_by_seed(study, against, metric)
    )
