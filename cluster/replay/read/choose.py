"""The filters of `python -m cluster replay`, read from the command line. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from cluster.replay.read.reader import StoredRow
from protocol.errors import UserError
from protocol.roles import CATEGORIES, PLAYERS, Category, Player
from protocol.states import AttackState, ResponseState, State

Word = TypeVar("Word", bound=str)

STATES: tuple[State, ...] = tuple(dict.fromkeys((*get_args(AttackState), *get_args(ResponseState))))


@dataclass(frozen=True, slots=True)
class Filter:
    """Every condition that is not None must hold.

    Attributes:
        state: how at least one item of the row ended.
        steps: first and last learner step (None: no end) that learned the row or has it leased.
    """

    player: Player | None = None
    category: Category | None = None
    state: State | None = None
    steps: tuple[int, int | None] | None = None
    game: int | None = None

    def __call__(self, row: StoredRow) -> bool:
        return (
            self.player in (None, row.player)
            and self.category in (None, row.category)
            and (self.state is None or self.state in row.states)
            and self.game in (None, row.game_id)
            and (self.steps is None or self._in_steps(row.fate.step, *self.steps))
        )

    @staticmethod
    def _in_steps(step: int | None, first: int, last: int | None) -> bool:
        return step is not None and first <= step and (last is None or step <= last)


def parse_filter(
    player: str | None, category: str | None, state: str | None, step: str | None, game: int | None
) -> Filter:
    """The filter that the options make.

    Args:
        step: ``A:B``, both included; either may be missing, and ``A`` is ``A:A``.

    Raises:
        UserError: an option has a value that it cannot have.
    """
    return Filter(
        _check_known("--player", player, PLAYERS),
        _check_known("--category", category, CATEGORIES),
        _check_known("--state", state, STATES),
        None if step is None else _parse_steps(step),
        game,
    )


def _check_known(option: str, value: str | None, known: Sequence[Word]) -> Word | None:
    if value is None:
        return None
    for word in known:
        if word == value:
            return word
    raise UserError(f"{option}: {value} is unknown; give one of {', '.join(known)}")


def _parse_steps(text: str) -> tuple[int, int | None]:
    found = re.fullmatch(r"(\d*)(:?)(\d*)", text)
    first, colon, last = found.groups() if found else ("", "", "")
    if not colon and not first:
        raise UserError(f"--step: {text!r} is no range of steps; write it as 10:20, 10:, :20 or 10")
    start, end = int(first or 0), (int(last) if last else None) if colon else int(first)
    if end is not None and end < start:
        raise UserError(f"--step: {text} ends before it begins; write the lower step first")
    return start, end
