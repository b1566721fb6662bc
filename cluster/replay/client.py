"""The callers' side of the replay actor: picklable adapters to `protocol.interfaces.GameSource` and `BatchSource`.

Every wait has a deadline. While the actor restarts, the same call is waited for (Ray asks again itself, `max_task_retries=-1`)
or, when Ray says "unavailable", asked again: every call of the actor is repeatable. A reply to `deal` that is lost all the same
leaves games open under a worker that does not know of them; the actor deals them again when they are overdue.

A batch is read where it lies, in the node's object store: its Arrow buffers are that shared memory, the same for every rank there.
"""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
import ray
from ray.exceptions import ObjectLostError

from cluster.calls import AWAY, ask, ask_blocking
from protocol.roles import Player
from protocol.types import Deal, GameRecord

# A restarted actor is back in a few seconds, a large run's segments take some tens to read. A run waits `run.stall_s` instead.
RESTART_S = 120.0
PART = "replay-0"


class ReplayClient:
    """`GameSource` for rollout workers.

    Args:
        handle: the actor.
        restart_s: how much longer than its own wait a call may take, restarts of the actor included.
    """

    def __init__(self, handle: Any, restart_s: float = RESTART_S) -> None:
        self._handle, self._restart_s = handle, restart_s
        # New in every process that the client is unpickled in: a worker that restarted under its old name has lost its games.
        self._incarnation = uuid4().hex[:8]

    def __reduce__(self) -> tuple[type["ReplayClient"], tuple[Any, float]]:
        return ReplayClient, (self._handle, self._restart_s)

    def _me(self, worker: str) -> str:
        return f"{worker}@{self._incarnation}"

    async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
        """Up to `limit` games; [] if none may start within `wait_s`, or the run stops."""
        deals: list[Deal] = await self._ask("deal", self._me(worker), limit, wait_s, wait_s=wait_s)
        return deals

    async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
        """Stores finished games; durable when it returns."""
        await self._ask("finish", self._me(worker), list(records))

    async def abandon(self, worker: str, game_id: int, reason: str) -> None:
        """Gives a game up for good."""
        await self._ask("abandon", self._me(worker), game_id, reason)

    async def _ask(self, method: str, *args: Any, wait_s: float = 0.0) -> Any:
        return await ask(self._handle, method, *args, part=PART, limit_s=wait_s + self._restart_s)


class BatchClient:
    """`BatchSource` for learner ranks; blocks its thread. Arguments as for `ReplayClient`."""

    def __init__(self, handle: Any, restart_s: float = RESTART_S) -> None:
        self._handle, self._restart_s = handle, restart_s

    def lease(self, player: Player, step: int, version: int, games: int, timeout_s: float) -> pa.Table | None:
        """The usable rows of a step's games (perhaps none), the same for every rank; None at the deadline. Read-only."""
        return ask_blocking(
            self._handle,
            "lease",
            player,
            step,
            version,
            games,
            timeout_s,
            part=PART,
            limit_s=timeout_s + self._restart_s,
            # ObjectLostError: the actor died between its answer and the fetch of what lay in its name (OwnerDiedError), or the
            # node did; restarted, it puts the same rows there again.
            away=(*AWAY, ObjectLostError),
            fetch=_get_table,
        )

    def stopping(self) -> bool:
        """Whether the learners are to save what they have and end."""
        return bool(self._ask("stopping"))

    def finished(self, player: Player) -> None:
        """This learner has taken its last step."""
        self._ask("finished", player)

    def acknowledge(self, player: Player, step: int) -> None:
        """A checkpoint now contains every step below `step`."""
        self._ask("acknowledge", player, step)

    def rewind(self, player: Player, step: int) -> int:
        """Returns the leases of `step` and later; gives the highest policy version seen."""
        return int(self._ask("rewind", player, step))

    def _ask(self, method: str, *args: Any) -> Any:
        return ask_blocking(self._handle, method, *args, part=PART, limit_s=self._restart_s)


def _get_table(answer: list[Any] | None, left_s: float) -> pa.Table | None:
    return None if answer is None else ray.get(answer[0], timeout=left_s)
