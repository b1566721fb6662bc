"""How many of a judge's answers change when only the question's words do: its rubrics reworded, or the very same words once more.

Pure. The same words once more, with other sampling seeds, are what a change is measured against: a judge that samples changes some
answers by itself. A label that got no answer on either side is not compared; it is counted as `lost`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.measure.intervals import Interval, wilson
from cluster.measure.outcomes import Outcome

AGAIN = "the same words again"
ANY = "any of the rewordings"


@dataclass(frozen=True, slots=True)
class Asking:
    """One pass over the labels: with which rubrics, and from which seed.

    Attributes:
        name: of the pass, for people.
        rubrics: as `judge.rubrics`.
    """

    name: str
    rubrics: str
    seed: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the answers in another pass.

    Attributes:
        compared: labels that got an answer in both.
        lost: those of the others that had one in the first.
        changed: share of the compared whose answer is another; None where nothing could be compared.
    """

    name: str
    compared: int
    lost: int
    changed: Interval | None


def compare_answers(name: str, first: Sequence[Outcome], others: Sequence[Sequence[Outcome]]) -> Changes:
    """Compares the answers of one pass with those of others; an answer counts as changed if any of them has another one.

    Args:
        first: the answers with the recipe's own rubrics.
        others: passes over the same labels, in the same order; at least one.
    """
    rows = [[o.answer for o in of_label] for of_label in zip(first, *others, strict=True)]
    known = [row for row in rows if None not in row]
    changed = sum(len(set(row)) > 1 for row in known)
    answered = sum(row[0] is not None for row in rows)
    return Changes(name, len(known), answered - len(known), wilson(changed, len(known)) if known else None)


def compare_passes(first: Sequence[Outcome], passes: Sequence[tuple[Asking, Sequence[Outcome]]]) -> tuple[Changes, ...]:
    """Each pass against the first; where several reworded, all of them together, too."""
    each = [compare_answers(asking.name, first, [outcomes]) for asking, outcomes in passes]
    reworded = [outcomes for asking, outcomes in passes if asking.name != AGAIN]
    return (*each, compare_answers(ANY, first, reworded)) if len(reworded) > 1 else tuple(each)
