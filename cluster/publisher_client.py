"""The callers' side of the publisher actor: picklable adapters for learners (`PublisherSink`) and workers (`VersionClient`).

Every wait has a deadline; a publisher that is away is asked again until then.
"""

import asyncio
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from protocol.roles import Player
from protocol.types import WeightManifest

ANSWER_S = 120.0  # to copy a version of some ten GB within shared memory, or across the network, and more
_PAUSE_S = 0.5  # between two asks of a publisher that is not there


class PublisherUnavailableError(TimeoutError):
    """The publisher did not answer in time."""


class PublisherSink:
    """`WeightSink` for learners; blocks its thread. `handle` is the publisher actor's."""

    def __init__(self, handle: Any, answer_s: float = ANSWER_S) -> None:
        self._handle, self._answer_s = handle, answer_s

    def publish(self, manifest: WeightManifest, packed: Any) -> None:
        """Leaves a version; returns when the publisher has its own copy, and waits for no worker.

        `packed` is a uint8 array, manifest.nbytes long; it may be overwritten afterwards.
        """
        ref = ray.put(packed)
        self._ask("publish", 0.0, manifest, [ref])

    def report(self, player: Player, step: int, version: int, metrics: dict[str, float]) -> None:
        """Metrics of the step that made `step` steps done."""
        self._ask("report", 0.0, player, step, version, metrics)

    def wait_delivered(self, player: Player, version: int, timeout_s: float) -> bool:
        """True once every worker of the player serves `version` or a newer one; False at the deadline."""
        return bool(self._ask("wait_delivered", timeout_s, player, version, timeout_s))

    def _ask(self, method: str, wait_s: float, *args: Any) -> Any:
        deadline = time.monotonic() + wait_s + self._answer_s
        while True:
            try:
                return ray.get(getattr(self._handle, method).remote(*args), timeout=deadline - time.monotonic())
            except GetTimeoutError as error:
                raise PublisherUnavailableError(_text(method, wait_s + self._answer_s)) from error
            except RayActorError as error:
                if time.monotonic() + _PAUSE_S > deadline:
                    raise PublisherUnavailableError(_text(method, wait_s + self._answer_s)) from error
                time.sleep(_PAUSE_S)


class VersionClient:
    """Where a starting generation worker learns what is newest. `handle` is the publisher actor's."""

    def __init__(self, handle: Any, answer_s: float = ANSWER_S) -> None:
        self._handle, self._answer_s = handle, answer_s

    async def newest(self, player: Player) -> tuple[WeightManifest, Any] | None:
        """The newest version of the player and its bytes (a read-only uint8 array); None before the first push."""
        deadline = time.monotonic() + self._answer_s
        while True:
            try:
                answer = _awaited(self._handle.newest.remote(player))
                found: tuple[WeightManifest, Any] | None = await asyncio.wait_for(answer, deadline - time.monotonic())
                return found
            except TimeoutError as error:
                raise PublisherUnavailableError(_text("newest", self._answer_s)) from error
            except RayActorError as error:
                if time.monotonic() + _PAUSE_S > deadline:
                    raise PublisherUnavailableError(_text("newest", self._answer_s)) from error
                await asyncio.sleep(_PAUSE_S)


async def _awaited(ref: Any) -> Any:
    return await ref


def _text(method: str, waited_s: float) -> str:
    return f"publisher: no answer to {method} within {waited_s:.0f} s; see logs/publisher-0.log"
