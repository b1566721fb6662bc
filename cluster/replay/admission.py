"""Admission: a game starts only if its rows can still be fresh when they are learned.

A pure state machine (no Ray, no clock). A learner step consumes `batch_games` finished games. A game of a step is any that the
player's table took: with rows or without, for ties and attacks that were never answered are what play came to. Not among them is
one that gives the player nothing because the judge failed: it fills no batch, so that an outage does not pass for steps, and its
room is free again as it ends. Invariants, for each player that learns:

- **bounded**: games in flight + finished games that no executed step has learned <= (max_staleness + 1) * batch_games. Games are
  learned first in, first out, so one that is admitted under this bound waits for at most `max_staleness` steps.
- **live**: a learner that waits is short of a batch, so fewer than `batch_games` games are unlearned. If none is in flight there is
  room for one, whatever the staleness. Where both wait, both have room; where one is busy, it comes back. A learner says that it
  has executed a step by asking for the next: until it does, the step's games count as unlearned and may be what the other
  waits behind, so asking is a move even where no batch comes of it. A judge that fails on every game moves nobody's step, and must
  not be asked for ever: the alarm pauses the deals, and `run.stall_s` ends a run that stays paused. So where no alarm can rise
  (`alarm.can_rise`) its failures are games like any other.

Where players take turns, only the one on turn bounds, and by no more than its turn can still learn: a turn has at least one step
left, so the same reasoning holds, and the turn passes on when its last step is executed.

It does not own the rows (`table`), the games (`dealer`) or the eviction of what went stale all the same (a slow game, a
restarted learner): that is the table's, at the lease.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

from cluster.replay.turns import Turn, trained
from protocol.errors import UserError
from protocol.recipe import Recipe
from protocol.roles import PLAYERS, Player


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """What the rule looks at.

    Attributes:
        open_games: games dealt and neither finished nor abandoned.
        unlearned: finished games held for each player: waiting ones and those of the step being executed.
        finished: players whose last step is executed; they bound nothing any more.
        turn: whose turn it is, where players take turns.
    """

    open_games: int
    unlearned: Mapping[Player, int]
    finished: frozenset[Player] = frozenset()
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """How many games may start now, and why not more (a sentence for people)."""

    games: int
    why: str


class AdmissionRule:
    """The rate limiter of the replay buffer.

    Args:
        max_staleness: versions between sampling and learning, at most. 0 is the synchronous mode.
        batch_games: finished games of one learner step, for each player.
        learns: the players that learn; the others bound nothing.

    Raises:
        UserError: nobody learns, or a bound is below what one batch needs: no step could ever be taken.
    """

    def __init__(
        self, max_staleness: int, batch_games: Mapping[Player, int], learns: Collection[Player] = PLAYERS
    ) -> None:
        if not learns:
            raise UserError("learners: 0 players learn, at least 1 must; let the attacker or the defender learn")
        if max_staleness < 0:
            raise UserError(
                f"replay.max_staleness: {max_staleness} is below 0, so no batch may ever wait; set it to at least 0"
            )
        self.max_staleness = max_staleness
        self._learns = tuple(p for p in PLAYERS if p in learns)
        for player in self._learns:
            if batch_games[player] < 1:
                raise UserError(
                    f"learners.{player}.batch_games: {batch_games[player]} is below 1, so no game may ever start; "
                    "set it to at least 1"
                )
        self._batch = {p: batch_games[p] for p in self._learns}

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> Self:
        """The rule of a run. Raises `UserError` for settings that would deadlock, so call it before anything starts."""
        batch: dict[Player, int] = {p: getattr(recipe.learners, p).batch_games for p in PLAYERS}
        rows_per_game: dict[Player, int] = {"attacker": 1, "defender": recipe.game.attacks}
        learns = trained(recipe)
        for player in learns:
            needed = batch[player] * rows_per_game[player]
            if recipe.replay.capacity_rows < needed:
                raise UserError(
                    f"replay.capacity_rows: {recipe.replay.capacity_rows} is below the {needed} rows that a batch of "
                    f"{batch[player]} games may give the {player}; set replay.capacity_rows to at least {needed}"
                )
        return cls(recipe.replay.max_staleness, batch, learns)

    def bound(self, player: Player, turn: Turn | None = None) -> int:
        """Games of a learning player that may be in flight or wait."""
        batches = self.max_staleness + 1
        return self._batch[player] * (batches if turn is None else min(batches, turn.steps_left))

    def admit(self, state: AdmissionState) -> Admission:
        """Games that may start now, on top of those open."""
        turn = state.turn
        active = [turn.player] if turn else [p for p in self._learns if p not in state.finished]
        if not active:
            return Admission(0, "every learner has taken its last step")
        room = {p: self.bound(p, turn) - state.unlearned[p] - state.open_games for p in active}
        tightest = min(active, key=lambda p: room[p])
        if room[tightest] > 0:
            return Admission(room[tightest], f"room for {room[tightest]} games, bounded by the {tightest}")
        flying = f" and {state.open_games} in flight" if state.open_games else ""
        left = f" with {turn.steps_left} steps of its turn left" if turn else ""
        return Admission(
            0,
            f"{tightest} has {state.unlearned[tightest]} unlearned games{flying} of {self.bound(tightest, turn)} allowed "
            f"at staleness {self.max_staleness}{left}",
        )
