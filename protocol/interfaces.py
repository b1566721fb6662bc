"""The interfaces between the parts. `cluster` supplies the real ones; unit tests supply named fakes."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from protocol.roles import Player
from protocol.router_state import RouterStats
from protocol.types import Ask, Completion, Deal, GameRecord, Holding, JudgeRequest, Verdict, WeightManifest


class Generator(Protocol):
    """One player's current policy."""

    async def generate(self, ask: Ask) -> list[Completion]:
        """One completion for each seed of the ask, in that order."""
        ...


class Judge(Protocol):
    """Answers questions about texts. A failure is a `Verdict` with `failure` set, never an exception and never a number."""

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict for each request, in that order."""
        ...


class Workers(Protocol):
    """Several workers of one kind, seen as one."""

    async def ask(self, body: Any, questions: int = 1, limit_s: float = math.inf, absent_s: float = math.inf) -> Any:
        """What one of them answers.

        Args:
            questions: the ask's weight in a worker's load.
            limit_s: for the answer, waiting for a worker included.
            absent_s: the longest time in which no worker that has it is heard of.

        Raises:
            TimeoutError: one of the two passed.
            Exception: what the worker raised.
        """
        ...

    def stats(self) -> RouterStats:
        """Counts, and what each worker misses."""
        ...


class GameSource(Protocol):
    """Where rollout workers get games and bring them back (the replay buffer)."""

    async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
        """Up to `limit` games that admission allows now; waits at most `wait_s` seconds for the first one."""
        ...

    async def abandon(self, worker: str, game_id: int, reason: str) -> None:
        """A game that cannot be finished: final, counted by its reason (one word)."""
        ...

    async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
        """Stores finished games. Idempotent for each game id."""
        ...


class WeightSink(Protocol):
    """Where a learner group's rank 0 leaves a staged version; delivery happens behind it."""

    def publish(self, manifest: WeightManifest, packed: Any) -> Holding:
        """Takes a version over and returns without waiting for any worker. A version that is there already changes nothing.

        Args:
            packed: a `protocol.shared.SharedBuffer`, manifest.nbytes long. It must not change while its version is held.

        Returns:
            What is held now. Of the same holder, what it does not name may be written again.

        Raises:
            NotHandedOver: it could not be, in time.
        """
        ...

    def holding(self, player: Player) -> Holding:
        """What is held of the player's versions. Raises as `publish` does."""
        ...


class BatchSource(Protocol):
    """Where learner ranks get rows. The same (player, step) always yields the same batch to every rank."""

    def lease(self, player: Player, step: int, version: int, games: int, timeout_s: float) -> Any:
        """The usable rows of the next `games` finished games, or None at the deadline.

        An Arrow table of `protocol.rows.SCHEMA`. It is empty when none of those games gave this player a row to learn from
        (all tied, failed or never answered): the step is taken all the same, with zero-weight rows.
        """
        ...

    def finished(self, player: Player) -> None:
        """This learner has taken its last step: its table no longer bounds admission."""
        ...

    def stopping(self) -> bool:
        """Whether the run is to end now: `lease` then answers at once, and learners save what they have and end."""
        ...

    def acknowledge(self, player: Player, step: int) -> None:
        """A checkpoint now contains every step below `step`: their rows are learned for good."""
        ...

    def rewind(self, player: Player, step: int) -> int:
        """Returns the leases of `step` and later. Gives the highest policy version seen for that player."""
        ...
