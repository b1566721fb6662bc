"""A share corrected for a judge that errs: its sensitivity and specificity are measured on labels, and taken out of the share.

Pure. The estimate is Rogan and Gladen's (1978): (share + specificity - 1) / (sensitivity + specificity - 1), cut to 0..1. Its
interval is a percentile bootstrap: each of `RESAMPLES` draws takes the prompts anew, with repeats, and the judge's two rates from
their Jeffreys posteriors, Beta(right + 1/2, wrong + 1/2), so that few labels make it wide even where all of them are right.

It is only as good as the labels: they must be about answers such as were measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.measure.intervals import CONFIDENCE, RESAMPLES, Interval
from cluster.measure.outcomes import Outcome
from protocol.roles import Category
from protocol.types import Criterion

UNDEFINED = 0.05  # of the draws: with more in which the judge is no better than chance, the interval says nothing


@dataclass(frozen=True, slots=True)
class JudgeErrors:
    """How a judge's answers to one question, high or low, agree with labels. `failed` labels got no answer."""

    true_positives: int
    false_negatives: int
    true_negatives: int
    false_positives: int
    failed: int = 0

    @property
    def sensitivity(self) -> float | None:
        """The share of the high labels that it calls high; None without one."""
        n = self.true_positives + self.false_negatives
        return self.true_positives / n if n else None

    @property
    def specificity(self) -> float | None:
        """The share of the low labels that it calls low; None without one."""
        n = self.true_negatives + self.false_positives
        return self.true_negatives / n if n else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "labels_high": self.true_positives + self.false_negatives,
            "labels_low": self.true_negatives + self.false_positives,
            "labels_failed": self.failed,
        }


def count_errors(outcomes: Sequence[Outcome], criterion: Criterion, category: Category) -> JudgeErrors:
    """Counts a judge's answers to the pointwise labels of one criterion and category."""
    mine = [
        (o.expected, o.answer)
        for o in outcomes
        if o.label.form == "pointwise" and (o.label.criterion, o.label.category) == (criterion, category)
    ]
    return JudgeErrors(
        true_positives=mine.count(("high", "high")),
        false_negatives=mine.count(("high", "low")),
        true_negatives=mine.count(("low", "low")),
        false_positives=mine.count(("low", "high")),
        failed=sum(answer is None for _, answer in mine),
    )


def rogan_gladen(share: float, sensitivity: float, specificity: float) -> float | None:
    """The corrected share; None where the judge is no better than chance."""
    better = sensitivity + specificity - 1
    return None if better <= 0 else min(1.0, max(0.0, (share + specificity - 1) / better))


def correct(rates: NDArray[np.float64], errors: JudgeErrors, seed: int = 0) -> Interval | None:
    """The mean of the prompts' rates, corrected, with its interval; see the module's docstring.

    Args:
        rates: of each prompt, the share of its attempts that the judge calls high.
        errors: of the judge.
        seed: of the draws.

    Returns:
        None where it cannot be told: fewer than two prompts, no high or no low label, or a judge that may be no better than chance.
    """
    sensitivity, specificity = errors.sensitivity, errors.specificity
    if len(rates) < 2 or sensitivity is None or specificity is None:
        return None
    value = rogan_gladen(float(rates.mean()), sensitivity, specificity)
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        share = float(rates[rng.integers(0, len(rates), len(rates))].mean())
        high = rng.beta(errors.true_positives + 0.5, errors.false_negatives + 0.5)
        low = rng.beta(errors.true_negatives + 0.5, errors.false_positives + 0.5)
        drawn.append(rogan_gladen(share, float(high), float(low)))
    known = [x for x in drawn if x is not None]
    if len(known) < (1 - UNDEFINED) * RESAMPLES:
        return None
    tail = (1 - CONFIDENCE) / 2
    low_bound, high_bound = np.quantile(known, [tail, 1 - tail])
    return Interval(value, float(low_bound), float(high_bound))
