"""Turns: who learns now. Frozen players never do; with `learners.alternate_every` the others take turns.

A pure state machine (no Ray, no clock). The turn follows only from the steps that each player has executed, so after a restart it
is the same:

    attacker 0..k-1 ──► defender 0..k-1 ──► attacker k..2k-1 ──► ...          (k = alternate_every)

- The attacker is on turn unless it is a whole turn ahead. A learner that goes back to an older checkpoint gets its turn back.
- A player whose learner took its last step has no more turns: the other one has all of them.
- In a turn the other player's rows are refused, its new steps wait, and games are dealt for the steps of this turn only. So what a
  player learns in a turn was played in that turn: against the opponent's present weights, not those of a turn ago.

It does not own the steps (`table`) nor what is admitted (`admission`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from cluster.plan.replay import ReplayPlan
from protocol.roles import PLAYERS, Player


@dataclass(frozen=True, slots=True)
class Turn:
    """The player on turn, and how many steps of its turn are not executed yet (at least 1)."""

    player: Player
    steps_left: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Steps executed by each player, and the players that have executed their last."""

    executed: Mapping[Player, int]
    finished: frozenset[Player] = frozenset()


class Roster:
    """See the module's docstring.

    Args:
        learns: the players that are trained.
        steps: optimizer steps of each of them, `run.steps`.
        every: steps of a turn; None: all of them learn at once.
    """

    def __init__(self, learns: Collection[Player], steps: int, every: int | None = None) -> None:
        self.learns = tuple(p for p in PLAYERS if p in learns)
        self._steps, self._every = steps, every

    @classmethod
    def from_plan(cls, plan: ReplayPlan) -> Self:
        return cls(plan.admission.trained, plan.steps, plan.alternate_every)

    def standing(self, tables: Mapping[Player, Any]) -> Standing:
        """From the players' tables (`cluster.replay.rules.table.Table`)."""
        done = {p: t.executed for p, t in tables.items()}
        return Standing(done, frozenset(p for p, t in tables.items() if t.finished or done[p] >= self._steps))

    def steps_left(self, standing: Standing) -> dict[Player, int]:
        """Steps that each learning player has not executed yet; those that are finished left out."""
        return {p: self._steps - standing.executed[p] for p in self.learns if p not in standing.finished}

    def turn(self, standing: Standing) -> Turn | None:
        """The present turn; None where nobody takes turns, or all are done."""
        every, done = self._every, standing.executed
        left = [p for p in self.learns if p not in standing.finished]
        if every is None or not left:
            return None
        player = min(left, key=lambda p: done[p] // every)  # of equals the first: the attacker
        end = self._steps if len(left) == 1 else min(self._steps, (done[player] // every + 1) * every)
        return Turn(player, end - done[player])

    def refusal(self, player: Player, standing: Standing) -> str | None:
        """Why a player that is not finished has no use for a game that ends now, whatever its rows hold; None if it has."""
        if player not in self.learns:
            return "frozen"
        turn = self.turn(standing)
        return None if turn is None or turn.player == player else "turn"
