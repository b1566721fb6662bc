"""The figures of an evaluation from its attempts: a row for each model, suite, topic and measure; and pairs of models. Pure.

At 1: the mean over the prompts of the share of a prompt's judged attempts that are hits. At k: the share of the prompts of which at
least one of k attempts is a hit, over the prompts whose attempts were all judged. Prompts are the independent trials, whatever the
number of attempts on each: Wilson's interval counts them, and the bootstrap draws them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.measure.correction import JudgeErrors, correct
from cluster.measure.intervals import Interval, bootstrap, wilson
from cluster.measure.paired import Paired, compare
from cluster.measure.suites.attempts import MEASURES, Attempt, Measure, tally

ALL = ""  # the topic of a row that counts all topics


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        model, suite, topic, measure: what of whom; topic "" is all of them.
        k: attempts of which one is enough; 1 for the mean of all attempts.
        prompts, counted: of that category, and those that the figure is made of.
        attempts, judged, judge_failed, no_answer: judged + judge_failed + no_answer = attempts.
        value: a share, 0 to 1; None where nothing was judged.
        wilson, bootstrap: its 95 % intervals; the second is None for a single prompt.
        corrected: for the judge's errors, at 1; None where no labels are known.
    """

    model: str
    suite: str
    topic: str
    measure: str
    k: int
    prompts: int
    counted: int
    attempts: int
    judged: int
    judge_failed: int
    no_answer: int
    value: float | None
    wilson: Interval | None
    bootstrap: Interval | None
    corrected: Interval | None

    def flatten(self) -> dict[str, Any]:
        """As columns: each interval as two, the corrected one with its value."""
        flat: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("model", "suite", "topic", "measure", "k", "prompts", "counted", "attempts", "judged",
                         "judge_failed", "no_answer", "value")
        }  # fmt: skip
        for name in ("wilson", "bootstrap", "corrected"):
            interval: Interval | None = getattr(self, name)
            flat |= {f"{name}_{end}": None if interval is None else getattr(interval, end) for end in ("low", "high")}
        return flat | {"corrected": None if self.corrected is None else self.corrected.value}


def make_rows(
    model: str,
    attempts: Sequence[Attempt],
    samples: int,
    errors: Mapping[str, JudgeErrors],
    measures: Sequence[Measure],
) -> list[Row]:
    """The rows of one model: for each suite all topics first, then each of several.

    Args:
        attempts: of that model, `samples` for each prompt.
        errors: of the judge, by measure; a measure without an entry is not corrected.
        measures: those that the judge can tell.
    """
    rows: list[Row] = []
    for suite in dict.fromkeys(a.suite for a in attempts):
        of_suite = [a for a in attempts if a.suite == suite]
        for measure in measures:
            mine = [a for a in of_suite if a.category == measure.category]
            topics = sorted({a.topic for a in mine})
            groups = {ALL: mine} | (
                {t: [a for a in mine if a.topic == t] for t in topics if t} if len(topics) > 1 else {}
            )
            for topic, group in groups.items():
                if group:
                    rows += _rows(Whose(model, suite, topic), group, samples, measure, errors.get(measure.name))
    return rows


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose row it is."""

    model: str
    suite: str
    topic: str


def _rows(
    whose: Whose, group: Sequence[Attempt], samples: int, measure: Measure, errors: JudgeErrors | None
) -> list[Row]:
    tallies = tally(group, measure)
    rates = np.array([t.rate for t in tallies if t.rate is not None], dtype=np.float64)
    made = [(1, rates, None if errors is None else correct(rates, errors))]
    if samples > 1 and measure.at_k:
        known = [t.any_hit for t in tallies if t.any_hit is not None]
        made.append((samples, np.array(known, dtype=np.float64), None))
    judged, no_answer = sum(t.judged for t in tallies), sum(t.no_answer for t in tallies)
    return [
        Row(
            model=whose.model,
            suite=whose.suite,
            topic=whose.topic,
            measure=measure.name,
            k=k,
            prompts=len(tallies),
            counted=len(values),
            attempts=len(group),
            judged=judged,
            judge_failed=len(group) - judged - no_answer,
            no_answer=no_answer,
            value=float(values.mean()) if len(values) else None,
            wilson=_wilson_of(values),
            bootstrap=_bootstrap_of(values),
            corrected=corrected,
        )
        for k, values, corrected in made
    ]


def _wilson_of(values: NDArray[np.float64]) -> Interval | None:
    n = len(values)
    return wilson(min(float(n), float(values.sum())), n) if n else None  # min: a sum of rounded thirds


def _bootstrap_of(values: NDArray[np.float64]) -> Interval | None:
    return bootstrap(len(values), lambda at: float(values[at].mean()))


@dataclass(frozen=True, slots=True)
class PairedRow:
    """A measure of two models on one suite: `paired` is model minus against, of attempts at `k` (see `Row.k`) in the test."""

    model: str
    against: str
    suite: str
    measure: str
    k: int
    paired: Paired

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "against": self.against,
            "suite": self.suite,
            "measure": self.measure,
            "k": self.k,
            **self.paired.as_dict(),
        }


def compare_models(
    model: str,
    attempts: Sequence[Attempt],
    against: str,
    others: Sequence[Attempt],
    samples: int,
    measures: Sequence[Measure],
) -> list[PairedRow]:
    """A model against another on the same prompts: the test at 1 is about first attempts, the one at k about any of k."""
    rows = []
    for suite in dict.fromkeys(a.suite for a in attempts):
        for measure in measures:
            mine, theirs = (tally([a for a in some if a.suite == suite], measure) for some in (attempts, others))
            if not mine:
                continue
            rates = [{t.item: t.rate for t in some if t.rate is not None} for some in (mine, theirs)]
            first = [{t.item: t.first for t in some if t.first is not None} for some in (mine, theirs)]
            rows.append(PairedRow(model, against, suite, measure.name, 1, compare(*first, *rates)))
            if samples > 1 and measure.at_k:
                hits = [{t.item: t.any_hit for t in some if t.any_hit is not None} for some in (mine, theirs)]
                shares = [{item: float(hit) for item, hit in some.items()} for some in hits]
                rows.append(PairedRow(model, against, suite, measure.name, samples, compare(*hits, *shares)))
    return rows


def known_measures(with_harmfulness: bool) -> tuple[Measure, ...]:
    """What a judge can tell."""
    return tuple(m for m in MEASURES if with_harmfulness or m.criterion != "harmfulness")
