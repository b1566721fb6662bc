"""Admission: a game starts only if its rows can still be fresh when they are learned.

A pure state machine (no Ray, no clock). A learner step consumes `batch_games` finished games. Every game that the player's table
took counts, with rows or without: ties and attacks that were never answered are results, too. A game that gives the player nothing
because the judge failed does not count: it fills no batch, so that an outage does not pass for steps, and its room is free again
when it ends. Invariants, for each player that learns:

- **bounded**: games in flight + finished games that no executed step has learned <= B * batch_games, where
  B = max_staleness + 1 - oldest_replica, and `oldest_replica` is how many versions behind the newest a generation worker is by
  design (`push.to: spread`; 0 with `all`).
  Proof that this keeps rows fresh: let the learner execute or wait for step k, at version v, when a game starts. The game's tokens
  are sampled under v - oldest_replica or newer. At most B * batch_games - 1 games are ahead of it. So if games are learned in the
  order in which they started, it is in the batch of step k + B - 1 at the latest, and each step makes at most one version. So it is
  learned at v + B - 1 or before, and its staleness is at most B - 1 + oldest_replica = max_staleness.
  The proof does not cover a game that others overtake, a sampler that leaves it waiting, a push under way as it starts, and a
  learner that goes back. These are caught at the lease: `table` gives no step a row beyond `max_staleness`, whatever was admitted.
- **live**: a learner that waits is short of a batch, so fewer than `batch_games` games are unlearned. If none is in flight there is
  room for one, whatever the staleness. Where both players wait, both have room; where one is busy, it comes back. A learner reports
  an executed step by asking for the next. Until it does, the step's games count as unlearned, and the other player may wait for
  their room; so asking is progress even if it gets no batch. A judge that fails on every game lets no player take a step, and must
  not be asked for ever: the alarm pauses the deals, and `run.stall_s` ends a run that stays paused. Where no alarm can rise
  (`alarm.can_rise`), games on which the judge failed count like any other.

A player's bound is never more than it can still learn: what it would learn after its last step is not played. Where players take
turns, only the one on turn has a bound, never more than its turn can still learn; the turn passes on when its last step is
executed. A player with a bound has at least one step left, so the same reasoning holds.

It does not own the rows (`table`), the games (`dealer`), or the engines' load (`backpressure`, which may admit fewer, never more).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.plan.replay import AdmissionNumbers
from cluster.replay.rules.turns import Turn
from protocol.metrics import WaitCause
from protocol.roles import PLAYERS, Player


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """The input of the rule.

    Attributes:
        open_games: games dealt and neither finished nor abandoned.
        unlearned: finished games held for each player: waiting ones and those of the step being executed.
        finished: players whose last step is executed; they have no bound any more.
        turn: whose turn it is, where players take turns.
        steps_left: of the run, for each player that is not finished; a missing one has more than the bound needs.
    """

    open_games: int
    unlearned: Mapping[Player, int]
    finished: frozenset[Player] = frozenset()
    turn: Turn | None = None
    steps_left: Mapping[Player, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Admission:
    """How many games may start now, and why not more, in words ("admitting 0: ...") and as a cause of waiting."""

    games: int
    why: str
    cause: WaitCause = "staleness"


class AdmissionRule:
    """The rate limiter of the replay buffer. `numbers` were checked when they were made: they cannot deadlock."""

    def __init__(self, numbers: AdmissionNumbers) -> None:
        self.max_staleness, self.oldest_replica = numbers.max_staleness, numbers.oldest_replica
        self._trained = tuple(p for p in PLAYERS if p in numbers.trained)
        self._batch = {p: numbers.batch_games[p] for p in self._trained}

    def bound(self, player: Player, steps_left: int | None = None) -> int:
        """Games of a learning player that may be in flight or wait. `steps_left`: steps that it can still take; None: enough."""
        batches = self.max_staleness + 1 - self.oldest_replica
        return self._batch[player] * (batches if steps_left is None else min(batches, steps_left))

    def admit(self, state: AdmissionState) -> Admission:
        """Games that may start now, on top of those open."""
        turn = state.turn
        active = [turn.player] if turn else [p for p in self._trained if p not in state.finished]
        if not active:
            return Admission(0, "admitting 0: every learner has taken its last step")
        steps = {turn.player: turn.steps_left} if turn else state.steps_left
        bound = {p: self.bound(p, steps.get(p)) for p in active}
        room = {p: bound[p] - state.unlearned[p] - state.open_games for p in active}
        tightest = min(active, key=lambda p: room[p])
        games = max(0, room[tightest])
        flying = f" and {state.open_games} in flight" if state.open_games else ""
        spread = f" with replicas up to {self.oldest_replica} behind" if self.oldest_replica else ""
        left = ""
        if turn:
            left = f" with {turn.steps_left} steps of its turn left"
        elif bound[tightest] < self.bound(tightest):
            left = f" with {steps[tightest]} steps of the run left"
        return Admission(
            games,
            f"admitting {games}: {tightest} has {state.unlearned[tightest]} unlearned games{flying} of "
            f"{bound[tightest]} allowed at staleness {self.max_staleness}{spread}{left}",
            "turn" if turn else "staleness",
        )
