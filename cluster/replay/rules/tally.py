"""Sums over finished games: how attacks and responses ended, how the judge fared, the mean reward. Pure.

Every count comes from a journal event, so it is the same after a restart. The mean reward covers the latest rows only.
"""

import functools
import operator
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeVar

from cluster.replay.rules.events import Event
from protocol.roles import CATEGORIES, PLAYERS, Category, Player
from protocol.states import AttackState, ResponseState
from protocol.types import GameRecord

Word = TypeVar("Word", bound=str)

RECENT_ROWS = 256  # for each player: a few batches, so the mean moves within a step or two and does not jitter


@dataclass(frozen=True, slots=True)
class StateCounts:
    """How attacks and responses ended: their numbers by state (`protocol.states`)."""

    attack: Mapping[AttackState, int] = field(default_factory=dict)
    response: Mapping[ResponseState, int] = field(default_factory=dict)

    def __add__(self, other: "StateCounts") -> "StateCounts":
        """Both together."""
        return StateCounts(_add(self.attack, other.attack), _add(self.response, other.response))


@dataclass(frozen=True, slots=True)
class JudgeCounts:
    """What the judge said in finished games.

    Attributes:
        verdicts: asked for.
        failed: those of them that could not be had.
        comparisons: pairs compared.
        disagreements: compared pairs whose two orders disagreed.
    """

    verdicts: int = 0
    failed: int = 0
    comparisons: int = 0
    disagreements: int = 0


def finish_event(record: GameRecord, judged: bool, places: Mapping[str, Sequence[int]]) -> Event:
    """The journal's `finish` event of a game.

    Args:
        judged: whether the run has a judge that is meant to answer, so that its failures count against a game.
        places: of each row by its id: segment, the batch's offset in it, and the row's index in the batch.
    """
    return {
        "e": "finish",
        "id": record.game_id,
        "category": record.seed.category,
        "rows": _count([group.player for group in record.groups]),
        "at": {row_id: list(place) for row_id, place in places.items()},
        "attack": _count(record.attack_states),
        "response": _count(record.response_states),
        "judge": {
            "verdicts": record.verdicts,
            "failed": record.verdicts_failed,
            "comparisons": record.comparisons,
            "disagreements": record.disagreements,
        },
        "judge_failed": judged and "judge_failed" in (*record.attack_states, *record.response_states),
    }


def _count(words: Sequence[Word]) -> dict[Word, int]:
    """As `Counter`, in its order, for a handful of words: a fifth of its cost."""
    return {word: words.count(word) for word in words}


class Tally:
    """Sums of `finish` events, and the mean reward of the latest rows of each player."""

    def __init__(self) -> None:
        self._attack: dict[Category, Counter[AttackState]] = {c: Counter() for c in CATEGORIES}
        self._response: dict[Category, Counter[ResponseState]] = {c: Counter() for c in CATEGORIES}
        self._judge = Counter({"verdicts": 0, "failed": 0, "comparisons": 0, "disagreements": 0})
        self._recent: dict[Player, deque[tuple[Category, float]]] = {p: deque(maxlen=RECENT_ROWS) for p in PLAYERS}

    def add_game(self, event: Event) -> None:
        """Counts one finished game."""
        self._attack[event["category"]].update(event["attack"])
        self._response[event["category"]].update(event["response"])
        self._judge.update(event["judge"])

    def add_row(self, player: Player, category: Category, reward: float | None) -> None:
        """Notes a row's mean reward; a row without any reward says nothing."""
        if reward is not None:
            self._recent[player].append((category, reward))

    @property
    def states(self) -> StateCounts:
        """How attacks and responses ended so far."""
        return functools.reduce(operator.add, self.states_of.values())

    @property
    def states_of(self) -> Mapping[Category, StateCounts]:
        """The same by the seed's category."""
        return {c: StateCounts(dict(self._attack[c]), dict(self._response[c])) for c in CATEGORIES}

    @property
    def judge(self) -> JudgeCounts:
        """What the judge said so far."""
        return JudgeCounts(**self._judge)

    def reward_mean(self, player: Player, category: Category | None = None) -> float | None:
        """Mean reward of the latest rows, or of those of a category among them; None without any."""
        recent = [reward for of, reward in self._recent[player] if category in (None, of)]
        return fmean(recent) if recent else None


def _add(one: Mapping[Word, int], other: Mapping[Word, int]) -> dict[Word, int]:
    return dict(Counter(one) + Counter(other))
