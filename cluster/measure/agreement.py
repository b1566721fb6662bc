"""How well a judge agrees with labels, from its answers to labelled questions: agreement, flips, failures, biases; 95 % intervals.

Pure. Fractions get Wilson's interval, everything else a bootstrap over the labels. What is undefined (no label judged, no decisive
verdict) is None and never 0.

Every measure except the two failure rates is taken over the labels that were judged; `n - judged` were not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.measure.intervals import Interval, Places, bootstrap, wilson
from cluster.measure.outcomes import Outcome
from judge.verdicts import UNREADABLE

Words = NDArray[np.int64]
Numbers = NDArray[np.float64]

# Answers by the form of the question: Cohen's kappa takes chance agreement within a form.
_FORMS = (("A", "B", "tie"), ("high", "low"), ("true", "false"))
POSITIVE = ("high", "true")  # the others are "low" and "false"
_CODE = {word: code for code, word in enumerate(word for form in _FORMS for word in form)}
_FORM_OF = np.array([k for k, form in enumerate(_FORMS) for _ in form])


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report.

    Attributes:
        criterion, form: of the labels; "overall" and "all" for the last line.
        n, judged: labels, and those that got an answer.
        accuracy: fraction of the answers that equal the label; a pointwise score counts as equal on the same side of 5.
        kappa: Cohen's; over several forms the chance agreement is taken within each. Where every answer is right its bootstrap
            interval has no width; accuracy's has.
        flip_rate: fraction of the pairs whose two orders name different winners.
        failure_rate: fraction of all verdicts that failed, for whatever reason.
        parse_failure_rate: fraction of all verdicts whose text came and could not be read.
        length_bias: fraction of the decisive answers that favour the longer response (characters), minus the same of the labels.
        position_bias: fraction of the decisive verdicts, over both orders, that favour the response shown first, minus 0.5.
        mean_error: mean absolute error of pointwise scores, in points of 10.
        sensitivity, specificity: fraction of the labels that are high or true, and of the others, that are answered so. Of one
            question only: neither for pairs, nor over several criteria.
    """

    criterion: str
    form: str
    n: int
    judged: int
    accuracy: Interval | None
    kappa: Interval | None
    flip_rate: Interval | None
    failure_rate: Interval | None
    parse_failure_rate: Interval | None
    length_bias: Interval | None
    position_bias: Interval | None
    mean_error: Interval | None
    sensitivity: Interval | None
    specificity: Interval | None

    def as_dict(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: v.as_dict() if isinstance(v, Interval) else v for name, v in values.items()}


def report(outcomes: Sequence[Outcome]) -> list[Row]:
    """A line for each criterion and form among the labels, and one over all of them."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.label.criterion, outcome.label.form), []).append(outcome)
    rows = [_row(criterion, form, group) for (criterion, form), group in sorted(groups.items())]
    return [*rows, _row("overall", "all", outcomes)]


def failures(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Failed verdicts by their reason, the most frequent first."""
    counted = Counter(v.failure for o in outcomes for v in o.verdicts if v.failure is not None)
    return dict(counted.most_common())


def accuracy(outcomes: Sequence[Outcome]) -> Interval | None:
    """The fraction of the answers that equal their label."""
    answers = [(o.expected, answer) for o in outcomes if (answer := o.answer) is not None]
    return _fraction([expected == answer for expected, answer in answers])


def kappa(expected: Sequence[str], given: Sequence[str]) -> float | None:
    """Cohen's kappa, in the words of `Outcome.expected`. None where chance alone would always agree.

    Over several forms of question it is (observed - chance) / (1 - chance), with the chance agreement taken within each form
    and averaged over the labels: a judge gains nothing from knowing the form of the question.
    """
    return _kappa(_codes(expected), _codes(given))


def _codes(words: Sequence[str]) -> Words:
    return np.array([_CODE[word] for word in words], dtype=np.int64)


def _kappa(expected: Words, given: Words) -> float | None:
    n, size = len(expected), len(_CODE)
    if n == 0:
        return None
    left, right = np.bincount(expected, minlength=size), np.bincount(given, minlength=size)
    of_form = np.bincount(_FORM_OF, weights=left)[_FORM_OF]
    chance = float((left * right / np.maximum(of_form, 1)).sum()) / n
    observed = float((expected == given).mean())
    return None if chance > 1 - 1e-9 else (observed - chance) / (1 - chance)


def _fraction(hits: Sequence[bool]) -> Interval | None:
    return wilson(sum(hits), len(hits)) if hits else None


def _share(values: Numbers) -> float | None:
    """The mean of the values that are not NaN; None if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _row(criterion: str, form: str, outcomes: Sequence[Outcome]) -> Row:
    answers = [(o, answer) for o in outcomes if (answer := o.answer) is not None]
    expected = _codes([o.expected for o, _ in answers])
    given = _codes([word for _, word in answers])
    pairs = [(o, word) for o, word in answers if o.label.form == "pairwise"]
    alike = answers if form in ("pointwise", "faithfulness") else []
    alone = [abs(o.scores[0] - float(o.label.label)) for o, _ in answers if o.label.form == "pointwise" and o.scores]
    errors = np.array(alone, dtype=np.float64)
    reasons = [v.failure for o in outcomes for v in o.verdicts]
    return Row(
        criterion=criterion,
        form=form,
        n=len(outcomes),
        judged=len(answers),
        accuracy=accuracy(outcomes),
        kappa=bootstrap(len(answers), lambda at: _kappa(expected[at], given[at])),
        flip_rate=_fraction([o.preference is not None and not o.preference.agreed for o, _ in pairs]),
        failure_rate=_fraction([why is not None for why in reasons]),
        parse_failure_rate=_fraction([why in UNREADABLE for why in reasons]),
        length_bias=_length_bias(pairs),
        position_bias=_position_bias([o for o, _ in pairs]),
        mean_error=bootstrap(len(errors), lambda at: float(errors[at].mean())),
        sensitivity=_fraction([word in POSITIVE for o, word in alike if o.expected in POSITIVE]),
        specificity=_fraction([word not in POSITIVE for o, word in alike if o.expected not in POSITIVE]),
    )


def _favours_longer(outcome: Outcome, winner: str) -> float:
    """1 if `winner` is the longer response, 0 if it is the shorter one, NaN for a tie of winners or of lengths."""
    a, b = (len(text) for text in outcome.label.responses)
    if winner == "tie" or a == b:
        return float("nan")
    return float((winner == "A") == (a > b))


def _length_bias(pairs: Sequence[tuple[Outcome, str]]) -> Interval | None:
    judged = np.array([_favours_longer(o, word) for o, word in pairs])
    labelled = np.array([_favours_longer(o, o.expected) for o, _ in pairs])

    def bias(at: Places) -> float | None:
        by_judge, by_label = _share(judged[at]), _share(labelled[at])
        return None if by_judge is None or by_label is None else by_judge - by_label

    return bootstrap(len(pairs), bias)


def _position_bias(pairs: Sequence[Outcome]) -> Interval | None:
    shown = [[v.scores for v in o.verdicts if v.scores is not None] for o in pairs]
    first = np.array([sum(s[0] > s[1] for s in orders) for orders in shown])
    decisive = np.array([sum(s[0] != s[1] for s in orders) for orders in shown])

    def bias(at: Places) -> float | None:
        total = int(decisive[at].sum())
        return float(first[at].sum()) / total - 0.5 if total else None

    return bootstrap(len(pairs), bias)
