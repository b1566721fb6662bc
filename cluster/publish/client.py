"""The callers' side of the publisher actor: picklable adapters for learners (`PublisherSink`) and workers (`VersionClient`).

Every wait has a deadline; a publisher that is away is asked again until then.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from cluster.calls import ask, ask_blocking
from protocol.roles import Player
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import WeightManifest

ANSWER_S = 120.0  # to copy a version of some ten GB within shared memory, or across the network, and more
PART = "publisher-0"


class PublisherSink:
    """`WeightSink` for learners; blocks its thread. `handle` is the publisher actor's."""

    def __init__(self, handle: Any, answer_s: float = ANSWER_S) -> None:
        self._handle, self._answer_s = handle, answer_s
        self._near: bool | None = None  # whether the publisher is on this node; asked where the sink is used

    def publish(self, manifest: WeightManifest, packed: Any) -> Sequence[int]:
        """Leaves a version; returns when the publisher holds it, and waits for no worker.

        Args:
            packed: a `SharedBuffer`, which the publisher's node reads in place, or a uint8 array. manifest.nbytes long.

        Returns:
            See `WeightSink.publish`. Of what was copied, its own version: it may be overwritten.
        """
        if isinstance(packed, SharedBuffer):
            if self._near is None:
                self._near = self.ask("node") == ray.get_runtime_context().get_node_id()
            if self._near:
                given_back: Sequence[int] = self.ask("publish", manifest, packed.file())
                return given_back
            packed = np.frombuffer(packed.view, np.uint8)
        self.ask("publish", manifest, [ray.put(packed)])
        return [manifest.version]

    def report(self, player: Player, step: int, version: int, metrics: dict[str, float]) -> None:
        """Metrics of the step that made `step` steps done."""
        self.ask("report", player, step, version, metrics)

    def report_warm(self, player: Player, done: int, wanted: int, metrics: dict[str, float]) -> None:
        """Metrics of the step that made `done` of `wanted` steps of the warm start done."""
        self.ask("report_warm", player, done, wanted, metrics)

    def newest(self, player: Player) -> int:
        """The newest version that was published; 0 before the first."""
        return int(self.ask("newest_version", player))

    def wait_delivered(self, player: Player, version: int, timeout_s: float) -> bool:
        """True once every worker of the player serves what is for it of `version` or newer; False at the deadline."""
        return bool(self.ask("wait_delivered", player, version, timeout_s, wait_s=timeout_s))

    def ask(self, method: str, *args: Any, wait_s: float = 0.0) -> Any:
        """What the publisher's method gives. `wait_s`: how long the method itself may wait, beside the time for its answer."""
        return ask_blocking(self._handle, method, *args, part=PART, limit_s=wait_s + self._answer_s)


class VersionClient:
    """Where a generation worker gets versions: what to start with, and the bytes of what is pushed.

    Args:
        handle: the publisher actor's.
        worker: the publisher's name for the worker, which decides on the version where they differ (`push.to: spread`).
    """

    def __init__(self, handle: Any, worker: str = "", answer_s: float = ANSWER_S) -> None:
        self._handle, self._worker, self._answer_s = handle, worker, answer_s

    async def newest(self, player: Player) -> tuple[WeightManifest, Any] | None:
        """The version to start with and its bytes, which a newer one may replace while they are read; None: the model folder."""
        while True:
            found: tuple[WeightManifest, SharedFile] | None = await self._ask("newest", player, self._worker)
            if found is None:
                return None
            manifest, file = found
            try:
                fetched = await self.fetch(manifest, file)
                return manifest, SharedBuffer.open(file).view if fetched is file else fetched
            except (FileNotFoundError, RayTaskError):
                again = await self._ask("newest", player, self._worker)
                if again is not None and again[0].version == manifest.version:
                    raise  # not because a newer one took its place
                continue

    async def fetch(self, manifest: WeightManifest, file: SharedFile) -> Any:
        """`file` itself if it is of this node, else a copy of its bytes (uint8 array), which the workers of a node share."""
        if file.node == ray.get_runtime_context().get_node_id():
            return file
        (ref,) = await self._ask("store", manifest.player, manifest.version)
        return await asyncio.wait_for(ref, self._answer_s)

    async def _ask(self, method: str, *args: Any) -> Any:
        return await ask(self._handle, method, *args, part=PART, limit_s=self._answer_s)
