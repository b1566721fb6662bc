"""The WeightPublisher actor: takes over each version from its learner and brings it to that player's generation workers.

A thin shell: `delivery` decides, `workers` carries it out. Invariants:

- **the learner goes on**: `publish` returns once the publisher holds the bytes, so that they outlive the learner; no worker is
  waited for. On one node the bytes stay where the learner staged them, and the workers read them there; between nodes Ray's object
  store carries them, once to each node.
- **nobody writes what is read**: a version's buffer is given back to the learner only when no worker loads it and none will.

`cluster` wraps it with `ray.remote(max_concurrency=...)`. A restarted publisher is empty: `register` has to be called again.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ray
import structlog

from cluster.publish.delivery import Delivery
from cluster.publish.pushes import PushTimer, tell_versions
from cluster.publish.stats import PlayerPushes, PublisherStats, StepReport, WarmStart, WorkerState
from cluster.publish.transfer import NativeTransfer
from cluster.publish.versions import HeldVersion, copy_from_store
from cluster.publish.workers import Workers
from protocol.meter import meter
from protocol.recipe import PushConfig
from protocol.roles import PLAYERS, Player
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import NativeUpdate, WeightManifest

log = structlog.get_logger(__name__)


class WeightPublisher:
    """See the module's docstring.

    Args:
        push: deadlines of a worker that takes one version.
        start_deadline_s: for a worker to start, engine and first version included; `generation.start_deadline_s`.
        periods: of each player's workers in turn, `Recipe.push_periods`; none: every worker takes every version.
        native: players whose learners send new versions themselves, GPU to GPU (`native`).
    """

    def __init__(
        self,
        push: PushConfig,
        start_deadline_s: float = 300.0,
        periods: Sequence[int] = (),
        native: Collection[Player] = (),
    ) -> None:
        self._push, self._periods, self._native = push, periods, native
        self._transfers: dict[Player, NativeTransfer] = {}
        self._delivery = Delivery(push.deadline_s, start_deadline_s)
        self._held: dict[Player, dict[int, HeldVersion]] = {p: {} for p in PLAYERS}
        self._checksums: dict[str, str] = {}
        self._timers: dict[Player, PushTimer] = {p: PushTimer() for p in PLAYERS}
        self._learner: dict[Player, StepReport] = {}  # its newest
        self._reports: list[StepReport] = []
        self._warm: dict[Player, WarmStart] = {}
        self._node: str = ray.get_runtime_context().get_node_id()
        self._workers = Workers(
            self._delivery, push, start_deadline_s, self._held, self._node, self._timers, self._checksums
        )

    async def node(self) -> str:
        """Ray's id of the node that versions are held on."""
        return self._node

    async def register(self, player: Player, workers: Sequence[Any]) -> None:
        """The player's generation workers, all of them. Each is started (again, if somebody has already) and then kept newest."""
        for k, handle in enumerate(workers):
            self._workers.add(player, f"{player}-{k}", handle, self._periods[k] if self._periods else 1)

    async def restart(self, worker: str, reason: str, kill: bool) -> bool:
        """Supervision found that a worker does not serve. False while a push to it, or its start, is under way: nothing happens."""
        return self._workers.restart(worker, reason, kill)

    async def publish(self, manifest: WeightManifest, where: SharedFile | Sequence[Any]) -> list[int]:
        """A new version. A version that is not newer than the newest is ignored.

        Args:
            where: a file of this node, which stays as it is until its version is given back, or one object ref to the bytes, in a
                list so that it is not fetched for the call.

        Returns:
            Versions that are not needed any more.

        Raises:
            TimeoutError: the bytes cannot be had in `push.deadline_s`.
        """
        player = manifest.player
        if manifest.version <= self._delivery.newest(player):
            log.warning("version_not_newer", player=player, version=manifest.version)
            return [manifest.version]
        async with asyncio.timeout(self._push.deadline_s):
            buffer = SharedBuffer.open(where) if isinstance(where, SharedFile) else await copy_from_store(where[0])
        if not self._delivery.publish(player, manifest.version, manifest.last):
            return [manifest.version]
        self._held[player][manifest.version] = HeldVersion(manifest, buffer)
        if player in self._native:
            self._transfers[player] = NativeTransfer(manifest.version)
        self._workers.push_all(self._transfers.get(player))
        return self._give_back(player)

    # -- versions that a learner sends itself

    async def list_receivers(self, player: Player, version: int) -> list[str]:
        """Workers that wait for a version from its learner."""
        transfer = self._transfers[player]
        return list(transfer.pushes) if transfer.version == version else []

    async def join(self, transport: str, init_infos: Mapping[str, dict[str, Any]]) -> None:
        """Lets each named worker meet the learner that calls. Raises what the first of them does, or `TimeoutError`."""
        await self._workers.join(transport, init_infos)

    async def send(self, player: Player, version: int, info: dict[str, Any]) -> bool:
        """Tells those who wait how to receive. Returns when each has answered or was given up; True if all serve the version."""
        transfer = self._transfers[player]
        if transfer.version != version or not transfer.settle(NativeUpdate(info)):
            return False  # too late: they were sent another way
        await transfer.wait_for_pushes()
        return all(self._delivery.workers(player)[name].version >= version for name in transfer.pushes)

    async def give_up_send(self, player: Player, version: int) -> None:
        """The learner could not: whoever still waits gets the bytes from here."""
        transfer = self._transfers[player]
        if transfer.version == version:
            transfer.settle(None)

    # -- versions that are sent from here

    def _give_back(self, player: Player) -> list[int]:
        held = self._held[player]
        over = sorted(held.keys() - self._delivery.needed_versions(player))
        for version in over:
            del held[version]
        return over

    async def newest(self, player: Player, worker: str = "") -> tuple[WeightManifest, SharedFile] | None:
        """The version that `worker` is to start with, and where its bytes are; without a name the newest. None: the model folder.

        The bytes may be replaced by a newer version's as soon as there is one: the checksum shows it.
        """
        version = self._delivery.choose(worker) if worker in self._workers else self._delivery.newest(player)
        found = self._held[player].get(version)
        return None if found is None else (found.manifest, found.buffer.file(self._node))

    async def store(self, player: Player, version: int) -> list[Any]:
        """An object ref to a version's bytes (uint8 array), for a worker on another node. Ray fetches it once for each node."""
        return [await self._held[player][version].store()]

    async def newest_version(self, player: Player) -> int:
        """The newest version that was published; 0 before the first."""
        return self._delivery.newest(player)

    async def wait_delivered(self, player: Player, version: int, timeout_s: float) -> bool:
        """True once `version` or newer is out and all workers (at least one) serve what is for them; False at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not self._delivery.is_delivered(player, version):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await self._workers.changed.wait(left)
        return True

    async def report(self, player: Player, step: int, version: int, metrics: dict[str, float]) -> None:
        """Metrics of a learner step; kept until they are drained."""
        report = StepReport(player, step, version, time.time(), metrics)
        self._learner[player] = report
        self._reports.append(report)

    async def report_warm(self, player: Player, done: int, wanted: int, metrics: dict[str, float]) -> None:
        """Metrics of a step of a learner's warm start."""
        nll = metrics["nll"]
        first = self._warm[player].first_nll if player in self._warm else nll
        self._warm[player] = WarmStart(done, wanted, first, nll)

    async def drain_metrics(self) -> list[StepReport]:
        """Reports since the last call."""
        drained, self._reports = self._reports, []
        return drained

    async def stats(self) -> PublisherStats:
        """Versions, pushes and workers of both players. Each call sets their metrics, too."""
        stats = PublisherStats(True, {p: self._player_stats(p) for p in PLAYERS})
        tell_versions(stats, meter())
        return stats

    def _player_stats(self, player: Player) -> PlayerPushes:
        workers = self._delivery.workers(player)
        learner, superseded = self._learner.get(player), self._delivery.superseded(player)
        evictions: Counter[str] = Counter()
        for worker in workers.values():
            evictions.update(worker.evictions)
        return PlayerPushes(
            newest=self._delivery.newest(player),
            versions_pushed=self._delivery.published(player) - superseded,
            superseded=superseded,
            step=self._step(player),
            metrics={} if learner is None else learner.metrics,
            pushes=self._timers[player].read(),
            evictions=dict(evictions),
            workers=tuple(
                WorkerState(name, w.state, w.version, self._checksums.get(name, "")) for name, w in workers.items()
            ),
            warm=self._warm.get(player, WarmStart()),
        )

    def _step(self, player: Player) -> int:
        """Steps done, as last reported; a resumed group first says it with the version that it pushes."""
        pushed = max((v.manifest.step for v in self._held[player].values()), default=0)
        learner = self._learner.get(player)
        return pushed if learner is None else max(pushed, learner.step)
