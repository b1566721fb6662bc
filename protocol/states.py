"""The states that end an attack or a response, and what each is worth (GAME.md 2).

Every attack and response ends in exactly one state. A state is never silently a score: its reward is -1, none, or the judge's.
"""

from typing import Final, Literal

AttackState = Literal["ok", "too_long", "malformed", "no_room", "unfaithful", "judge_failed", "no_valid_response"]
ResponseState = Literal["ok", "too_long", "malformed", "no_room", "attack_invalid", "judge_failed"]
State = AttackState | ResponseState
ReadState = Literal["ok", "too_long", "malformed", "no_room"]  # either player's, before any judge is asked

PENALTY: Final = -1.0
PENALISED: Final[frozenset[State]] = frozenset({"too_long", "malformed", "unfaithful"})
EXCLUDED: Final[frozenset[State]] = frozenset({"no_room", "judge_failed", "no_valid_response", "attack_invalid"})


def fixed_reward(state: State) -> float | None:
    """The reward of a state that no judge scores: -1 if penalised, None if excluded.

    Raises:
        ValueError: for `ok` (its reward is the judge's) and for words that are no state.
    """
    if state in PENALISED:
        return PENALTY
    if state in EXCLUDED:
        return None
    raise ValueError(f"state {state!r} has no fixed reward")
