"""The interfaces between the parts. `cluster` supplies the real ones; unit tests supply named fakes."""

from collections.abc import Sequence
from typing import Any, Protocol

from protocol.roles import Player
from protocol.types import Ask, Completion, Deal, GameRecord, JudgeRequest, Verdict, WeightManifest


class Generator(Protocol):
    """One player's current policy."""

    async def generate(self, ask: Ask) -> list[Completion]:
        """One completion for each seed of the ask, in that order."""
        ...


class Judge(Protocol):
    """Whoever compares. A failure is a `Verdict` with `failure` set, never an exception and never a number."""

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict for each request, in that order."""
        ...


class GameSource(Protocol):
    """Where rollout workers get games and bring them back (the replay buffer)."""

    async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
        """Up to `limit` games that admission allows now; waits at most `wait_s` seconds for the first one."""
        ...

    async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
        """Stores finished games. Idempotent for each game id."""
        ...


class WeightSink(Protocol):
    """Where a learner group's rank 0 leaves a staged version; delivery happens behind it."""

    def publish(self, manifest: WeightManifest, packed: Any) -> None:
        """Takes over `packed` (uint8, manifest.nbytes long) and returns without waiting for any worker."""
        ...


class BatchSource(Protocol):
    """Where learner ranks get rows. The same (player, step) always yields the same batch to every rank."""

    def lease(self, player: Player, step: int, version: int, rows: int, timeout_s: float) -> Any:
        """An Arrow table of `protocol.rows.SCHEMA`, at most `rows` long, or None at the deadline."""
        ...

    def acknowledge(self, player: Player, step: int) -> None:
        """A checkpoint now contains every step below `step`: their rows are learned for good."""
        ...

    def rewind(self, player: Player, step: int) -> int:
        """Returns the leases of `step` and later. Gives the highest policy version seen for that player."""
        ...
