"""What the replay buffer is built from, and that its numbers cannot deadlock. Pure; the state machines are `replay.rules`."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.errors import UserError
from protocol.recipe import AlarmConfig, BackpressureConfig, Loss, Recipe, ReplayConfig
from protocol.roles import PLAYERS, Player


@dataclass(frozen=True, slots=True)
class AdmissionNumbers:
    """The numbers of `cluster.replay.rules.admission`, which says why they keep rows fresh.

    Attributes:
        max_staleness: versions between sampling and learning, at most. 0 is the synchronous mode.
        batch_games: finished games of one learner step, for each player.
        trained: the players that learn; the others bound nothing.
        oldest_replica: versions that a generation worker may be behind the newest by design.

    Raises:
        UserError: nobody learns, or a bound is below what one batch needs: no step could ever be taken.
    """

    max_staleness: int
    batch_games: Mapping[Player, int]
    trained: tuple[Player, ...] = PLAYERS
    oldest_replica: int = 0

    def __post_init__(self) -> None:
        if not self.trained:
            raise UserError("learners: 0 players learn, at least 1 must; let the attacker or the defender learn")
        if self.max_staleness < 0:
            raise UserError(
                f"replay.max_staleness: {self.max_staleness} is below 0, so no batch may ever wait; set it to at least 0"
            )
        if self.oldest_replica > self.max_staleness:
            raise UserError(
                f"replay.max_staleness: {self.max_staleness} is below the {self.oldest_replica} versions that a replica may be "
                f"behind with push.to spread, so what it samples may never be learned; set it to at least {self.oldest_replica}"
            )
        for player in self.trained:
            if self.batch_games[player] < 1:
                raise UserError(
                    f"learners.{player}.batch_games: {self.batch_games[player]} is below 1, so no game may ever start; "
                    "set it to at least 1"
                )


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What the replay buffer is built from.

    Attributes:
        seed: of the run.
        steps: optimizer steps of each learner.
        alternate_every: steps of a turn; None: all players learn at once.
        table: the recipe's `replay` section.
        losses: of each player; they decide what can be learned from.
        game_limit_s: seconds after which an open game's worker, or a reply, is taken for lost.
        alarm: when the judge is no longer believed. With `judge.kind: none`, whose verdicts are meant to fail, it never rises.
        backpressure: None where only staleness bounds the open games.
        first_limit: games, where backpressure starts.
        both_orders: whether every pair is judged in both orders, so that its winner can flip.
    """

    seed: int
    steps: int
    alternate_every: int | None
    admission: AdmissionNumbers
    table: ReplayConfig
    losses: Mapping[Player, Loss]
    game_limit_s: float
    alarm: AlarmConfig
    backpressure: BackpressureConfig | None
    first_limit: int
    both_orders: bool


def plan_replay(recipe: Recipe) -> ReplayPlan:
    """Decides everything about the replay buffer."""
    judge, generation, game = recipe.judge, recipe.generation, recipe.game
    fits = generation.workers * generation.max_num_seqs // (game.attacks * game.responses)
    return ReplayPlan(
        seed=recipe.run.seed,
        steps=recipe.run.steps,
        alternate_every=recipe.learners.alternate_every,
        admission=plan_admission(recipe),
        table=recipe.replay,
        losses={p: recipe.learners.of(p).loss for p in PLAYERS},
        game_limit_s=longest_game_s(recipe),
        alarm=judge.alarm if judge.kind != "none" else judge.alarm.model_copy(update={"failure_rate": 1.0}),
        backpressure=generation.backpressure,
        first_limit=max(1, min(fits, game.in_flight)),
        both_orders=recipe.both_orders,
    )


def plan_admission(recipe: Recipe) -> AdmissionNumbers:
    """The admission rule's numbers."""
    batch: dict[Player, int] = {p: recipe.learners.of(p).batch_games for p in PLAYERS}
    return AdmissionNumbers(recipe.replay.max_staleness, batch, recipe.trained, recipe.oldest_replica)


def longest_game_s(recipe: Recipe) -> float:
    """Seconds that a game may take: two generations and three rounds of judging, each at its deadline."""
    judge = recipe.judge
    waits_s = (judge.api.retries + 1) * judge.api.timeout_s if judge.kind == "api" else 0.0
    return 2 * recipe.generation.deadline_s + 3 * judge.attempts * (judge.deadline_s + waits_s)
