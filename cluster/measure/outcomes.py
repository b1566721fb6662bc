"""A judge's answers to labelled questions, read as a game reads them.

A pair is judged in both orders, whatever the recipe's quirks; a response wins if both orders name it. A failed verdict leaves its
label without an answer: it is counted, and never becomes a number or a tie. This module knows nothing of statistics (`agreement`)
or of how the judge is reached.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cluster.inputs.labels import WINNERS, Label
from protocol.preferences import compare
from protocol.randomness import derive_seed
from protocol.types import JudgeRequest, Preference, Verdict

MIDDLE = 5.0  # pointwise scores on the same side of it agree, as in `heldout`

Ask = Callable[[list[JudgeRequest]], Awaitable[list[Verdict]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One label and the verdicts on it: for a pair in the given order, then swapped; one otherwise."""

    label: Label
    verdicts: tuple[Verdict, ...]

    @property
    def scores(self) -> tuple[float, ...] | None:
        """A pair's two scores, each the mean over both orders, or the one score. None for faithfulness and failures."""
        if self.label.form == "pairwise":
            pair = self.preference
            if pair is None or pair.swapped is None:
                return None
            return tuple((a + b) / 2 for a, b in zip(pair.forward, pair.swapped, strict=True))
        return None if self.label.form == "faithfulness" else self.verdicts[0].scores

    @property
    def preference(self) -> Preference | None:
        """Both orders of a pair, joined. None if one failed, and for other questions."""
        if self.label.form != "pairwise":
            return None
        given, swapped = (v.scores for v in self.verdicts)
        if given is None or swapped is None:
            return None
        return compare(0, 1, (given[0], given[1]), (swapped[1], swapped[0]))

    @property
    def answer(self) -> str | None:
        """The judge's answer in the words of `expected`; None if it gave none."""
        if self.label.form == "pairwise":
            pair = self.preference
            return None if pair is None else "tie" if pair.winner is None else WINNERS[pair.winner]
        verdict = self.verdicts[0]
        if self.label.form == "faithfulness":
            return None if verdict.faithful is None else _word(verdict.faithful)
        return None if verdict.scores is None else _side(verdict.scores[0])

    @property
    def expected(self) -> str:
        """The label as one word: A, B, tie; high, low; true, false."""
        label = self.label.label
        if isinstance(label, str):
            return label
        return _word(label) if isinstance(label, bool) else _side(label)


def _side(score: float) -> str:
    return "high" if score >= MIDDLE else "low"


def _word(faithful: bool) -> str:
    return "true" if faithful else "false"


def make_requests(label: Label, seed: int) -> list[JudgeRequest]:
    """The requests about one label; the same seed gives the same ones."""
    orders = [label.responses, label.responses[::-1]] if label.form == "pairwise" else [label.responses]
    return [
        JudgeRequest(label.criterion, label.category, label.query, shown, derive_seed(seed, at))
        for at, shown in enumerate(orders)
    ]


async def judge_labels(ask: Ask, labels: Sequence[Label], seed: int, in_flight: int) -> list[Outcome]:
    """Has every label judged, in the order of the labels.

    Args:
        ask: one verdict for each request; it keeps its own deadline.
        seed: of the judge's sampling.
        in_flight: labels judged at once.
    """
    free = asyncio.Semaphore(in_flight)

    async def one(place: int, label: Label) -> Outcome:
        async with free:
            return Outcome(label, tuple(await ask(make_requests(label, derive_seed(seed, "label", place)))))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(place, label)) for place, label in enumerate(labels)]
    return [task.result() for task in tasks]
