"""The callers' side of the replay actor: picklable adapters to `protocol.interfaces.GameSource` and `BatchSource`.

Every wait has a deadline. While the actor restarts, the same call is waited for (Ray asks again itself, `max_task_retries=-1`)
or, when Ray says "unavailable", asked again: every call of the actor is repeatable. A reply to `deal` that is lost all the same
leaves games open under a worker that does not know of them; the actor deals them again when they are overdue.

A batch is read where it lies, in the node's object store: its Arrow buffers are that shared memory, the same for every rank there.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from protocol.roles import Player
from protocol.types import Deal, GameRecord

# A restarted actor is back in a few seconds, a large run's segments take some tens to read; a minute more than that.
RESTART_S = 120.0
_PAUSE_S = 0.5  # between two asks of an actor that is not there


class ReplayUnavailableError(TimeoutError):
    """The replay actor did not answer in time: it is overloaded, or does not come back."""


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
        deals: list[Deal] = await self._ask("deal", wait_s, self._me(worker), limit, wait_s)
        return deals

    async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
        """Stores finished games; durable when it returns."""
        await self._ask("finish", 0.0, self._me(worker), list(records))

    async def abandon(self, worker: str, game_id: int, reason: str) -> None:
        """Gives a game up for good."""
        await self._ask("abandon", 0.0, self._me(worker), game_id, reason)

    async def _ask(self, method: str, wait_s: float, *args: Any) -> Any:
        deadline = time.monotonic() + wait_s + self._restart_s
        while True:
            try:
                ref = getattr(self._handle, method).remote(*args)
                return await asyncio.wait_for(_awaited(ref), deadline - time.monotonic())
            except TimeoutError as error:
                raise _unavailable(method, wait_s + self._restart_s) from error
            except RayActorError as error:
                if time.monotonic() + _PAUSE_S > deadline:
                    raise _unavailable(method, wait_s + self._restart_s) from error
                await asyncio.sleep(_PAUSE_S)


class BatchClient:
    """`BatchSource` for learner ranks; blocks its thread. Arguments as for `ReplayClient`."""

    def __init__(self, handle: Any, restart_s: float = RESTART_S) -> None:
        self._handle, self._restart_s = handle, restart_s

    def lease(self, player: Player, step: int, version: int, games: int, timeout_s: float) -> pa.Table | None:
        """The usable rows of a step's games (perhaps none), the same for every rank; None at the deadline. Read-only."""
        return self._ask("lease", timeout_s, player, step, version, games, timeout_s, fetch=_table)

    def finished(self, player: Player) -> None:
        """This learner has taken its last step."""
        self._ask("finished", 0.0, player)

    def acknowledge(self, player: Player, step: int) -> None:
        """A checkpoint now contains every step below `step`."""
        self._ask("acknowledge", 0.0, player, step)

    def rewind(self, player: Player, step: int) -> int:
        """Returns the leases of `step` and later; gives the highest policy version seen."""
        return int(self._ask("rewind", 0.0, player, step))

    def _ask(
        self, method: str, wait_s: float, *args: Any, fetch: Callable[[Any, float], Any] = lambda answer, _: answer
    ) -> Any:
        deadline = time.monotonic() + wait_s + self._restart_s
        while True:
            try:
                answer = ray.get(getattr(self._handle, method).remote(*args), timeout=deadline - time.monotonic())
                return fetch(answer, deadline)
            except GetTimeoutError as error:
                raise _unavailable(method, wait_s + self._restart_s) from error
            # ObjectLostError: the actor died between its answer and the fetch of what lay in its name (OwnerDiedError), or the
            # node did; restarted, it puts the same rows there again.
            except (RayActorError, ObjectLostError) as error:
                if time.monotonic() + _PAUSE_S > deadline:
                    raise _unavailable(method, wait_s + self._restart_s) from error
                time.sleep(_PAUSE_S)


def _table(answer: list[Any] | None, deadline: float) -> pa.Table | None:
    return None if answer is None else ray.get(answer[0], timeout=max(0.0, deadline - time.monotonic()))


async def _awaited(ref: Any) -> Any:
    return await ref


def _unavailable(method: str, waited_s: float) -> ReplayUnavailableError:
    return ReplayUnavailableError(
        f"replay buffer: no answer to {method} within {waited_s:.0f} s; see logs/replay-0.log"
    )
