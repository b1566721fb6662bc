"""The WeightPublisher actor: takes over each version from its learner and brings it to that player's generation workers.

A thin shell: `delivery` decides, `workers` carries it out, `versions` knows where the bytes lie. Invariants:

- **the learner goes on**: `publish` returns once the bytes are held, so that they outlive the learner; no worker is waited for and
  no byte is moved. On one node the workers read them where the learner staged them; another node gets one copy.
- **nobody writes what is read**: each answer to a learner names all of its versions that are held. What is not named may be
  written; asked twice, it is the same answer.
- **the loop never stands still**: bytes are mapped, copied and let go of in threads.

`cluster` wraps it with `ray.remote(max_restarts=-1, max_concurrency=...)`. A restarted publisher is empty: the driver registers the
workers again, and says which version was newest; each learner finds that its newest version is not held, and leaves it again.
Meanwhile the workers serve on, and one that starts waits.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.commit import ChangeSignal
from cluster.publish.delivery import Delivery
from cluster.publish.fallback import Fallback
from cluster.publish.holder import Holder
from cluster.publish.pushes import PushTimer, tell_versions
from cluster.publish.reports import Report, ReportBox, Taken
from cluster.publish.stats import (
    PlayerPushes,
    PublisherStats,
    StepReport,
    TransportState,
    WarmReport,
    WarmStart,
    WorkerState,
)
from cluster.publish.transfer import NativeTransfer
from cluster.publish.versions import Versions
from cluster.publish.workers import Workers
from protocol.errors import VersionGone
from protocol.meter import meter
from protocol.recipe import PushConfig, Transport
from protocol.roles import PLAYERS, Player
from protocol.shared import SharedFile
from protocol.types import Holding, NativeUpdate, WeightManifest

log = structlog.get_logger(__name__)

REJOIN_S = 60.0  # a worker that starts waits so long for the version that a restarted publisher does not hold yet


def start_holder(node: str, cls: type = Holder) -> Any:
    """A holder's actor on that node. It ends with the process that started it."""
    pinned = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "max_concurrency": 1000, "scheduling_strategy": pinned}
    return ray.remote(cls).options(**options).remote(node)


class WeightPublisher:
    """See the module's docstring.

    Args:
        push: deadlines of a worker that takes one version.
        start_deadline_s: for a worker to start, engine and first version included; `generation.start_deadline_s`.
        periods: of each player's workers in turn, `Recipe.push_periods`; none: every worker takes every version.
        native: transports of players whose learners send new versions themselves, GPU to GPU (`native`).
        start_holder: starts `Holder` as an actor on the node of that id.
    """

    def __init__(
        self,
        push: PushConfig,
        start_deadline_s: float = 300.0,
        periods: Sequence[int] = (),
        native: Mapping[Player, Transport] | None = None,
        start_holder: Callable[[str], Any] = start_holder,
    ) -> None:
        self._push, self._periods = push, periods
        self._fallbacks = {player: Fallback(transport) for player, transport in (native or {}).items()}
        self._transfers: dict[Player, NativeTransfer] = {}
        self._delivery = Delivery(push.deadline_s, start_deadline_s)
        self._name = uuid.uuid4().hex  # of this process: another one holds nothing of what was left here
        self._checksums: dict[str, str] = {}
        self._timers: dict[Player, PushTimer] = {p: PushTimer() for p in PLAYERS}
        self._learner: dict[Player, StepReport] = {}  # its newest
        self._reports = ReportBox(self._name)
        self._warm: dict[Player, WarmStart] = {}
        self._node: str = ray.get_runtime_context().get_node_id()
        self._versions = Versions(self._node, start_holder, lambda: ray.get_runtime_context().current_actor)
        self._registered: dict[Player, int] = {}  # the newest version that there was then
        self._known = ChangeSignal()  # workers were registered, or a version came
        self._workers = Workers(
            self._delivery, push, start_deadline_s, self._versions, self._timers, self._checksums, self._note_change
        )

    async def register(self, player: Player, workers: Sequence[Any], newest: int = 0) -> None:
        """The player's generation workers, all of them. Each is started (again, if somebody has already) and then kept newest.

        Args:
            newest: version that was published before, as far as is known: no worker starts with an older one.
        """
        self._registered[player] = newest
        for k, handle in enumerate(workers):
            self._workers.add(player, f"{player}-{k}", handle, self._periods[k] if self._periods else 1)
        self._known.notify()

    async def restart(self, worker: str, reason: str, kill: bool) -> bool:
        """Supervision found that a worker does not serve. False while a push to it, or its start, is under way: nothing happens."""
        return self._workers.restart(worker, reason, kill)

    async def publish(self, manifest: WeightManifest, file: SharedFile) -> Holding:
        """A new version. A version that is not newer than the newest is ignored, unless the newest was lost with a node.

        Args:
            file: stays as it is for as long as its version is held.

        Returns:
            What is held of the player's.

        Raises:
            FileNotFoundError, RayError, TimeoutError: it cannot be held.
        """
        player, version = manifest.player, manifest.version
        lost = version == self._delivery.newest(player) and self._versions.get(player, version) is None
        if version > self._delivery.newest(player) or lost:
            async with asyncio.timeout(self._push.deadline_s):
                await self._versions.take(manifest, file)
            if self._delivery.publish(player, version, manifest.last):
                self._transfers.pop(player, None)
                if player in self._fallbacks and self._fallbacks[player].off_since is None:
                    self._transfers[player] = NativeTransfer(version)
            self._workers.push_all(self._transfers.get(player))
            self._known.notify()
        return self._release(player)

    async def holding(self, player: Player) -> Holding:
        """What is held of the player's."""
        return self._release(player)

    async def read(self, player: Player, version: int, offset: int, nbytes: int) -> Any:
        """See `Holder.read`."""
        return await self._versions.local.read(player, version, offset, nbytes)

    # -- versions that a learner sends itself

    async def list_receivers(self, player: Player, version: int) -> list[str]:
        """Workers that wait for a version from its learner."""
        transfer = self._transfers.get(player)
        return list(transfer.pushes) if transfer is not None and transfer.version == version else []

    async def join(self, transport: str, init_infos: Mapping[str, dict[str, Any]]) -> None:
        """Lets each named worker meet the learner that calls. Raises what the first of them does, or `TimeoutError`."""
        await self._workers.join(transport, init_infos)

    async def send(self, player: Player, version: int, info: dict[str, Any]) -> bool:
        """Tells those who wait how to receive. Returns when each has answered or was given up; True if all serve the version."""
        transfer = self._transfers.get(player)
        if transfer is None or transfer.version != version or not transfer.settle(NativeUpdate(info)):
            return False  # too late: they were sent another way
        await transfer.wait_for_pushes()
        sent = all(self._delivery.workers(player)[name].version >= version for name in transfer.pushes)
        self._judge(player, version, sent)
        return sent

    async def give_up_send(self, player: Player, version: int) -> None:
        """The learner could not: whoever still waits gets the bytes from here."""
        transfer = self._transfers.get(player)
        if transfer is not None and transfer.version == version:
            transfer.settle(None)
            self._judge(player, version, False)

    def _judge(self, player: Player, version: int, sent: bool) -> None:
        fallback = self._fallbacks[player]
        if fallback.record(version, sent):
            log.error("transport_off", player=player, transport=fallback.transport, after=version, uses="host")

    def _note_change(self, player: Player) -> None:
        """The player's workers are not the ones they were."""
        fallback = self._fallbacks.get(player)
        if fallback is not None and fallback.note_change():
            log.warning("transport_on", player=player, transport=fallback.transport)

    # -- versions that are sent from here

    def _release(self, player: Player) -> Holding:
        self._versions.release(player, self._delivery.needed_versions(player))
        return Holding(self._name, self._versions.list_held(player))

    async def chosen(self, player: Player, worker: str = "") -> int:
        """The version that `worker` is to start with; without a name the newest. 0: the model folder.

        Raises:
            VersionGone: it is not here, and did not come in time: the publisher was restarted.
        """
        deadline = time.monotonic() + REJOIN_S
        while self._delivery.newest(player) < self._registered.get(player, 1):
            left = deadline - time.monotonic()
            if left <= 0:
                raise VersionGone(player, self._registered.get(player, 1))
            await self._known.wait(left)
        return self._delivery.choose(worker) if worker in self._workers else self._delivery.newest(player)

    async def newest(self, player: Player, worker: str, node: str) -> tuple[WeightManifest, SharedFile, bool] | None:
        """`chosen`, and where its bytes lie on `node`. None: the model folder.

        Returns:
            At its end, whether the bytes stay as they are until the worker has started. Of a worker that is not known, or does not
            start, a newer version may take their place: the checksum shows it.

        Raises:
            VersionGone: it cannot be had there.
        """
        version = await self.chosen(player, worker)
        if version == 0:
            return None
        stays = worker in self._workers and self._delivery.begin_load(worker, version)
        file = await self._versions.file_on(player, version, node)
        held = self._versions.get(player, version)
        if held is None:
            raise VersionGone(player, version)
        return held.manifest, file, stays

    async def file_on(self, player: Player, version: int, node: str) -> SharedFile:
        """Where a version's bytes lie on a node, for all of its workers. Raises `VersionGone`."""
        return await self._versions.file_on(player, version, node)

    async def confirm(self, player: Player, version: int, layout: str, worker: str, digest: str) -> bool:
        """A worker loaded a version, and is about to serve it. False: it must not, the others hold other parameters."""
        return self._workers.confirm(player, version, layout, worker, digest)

    async def newest_version(self, player: Player) -> int:
        """The newest version that was published, before a restart too; 0 before the first."""
        return max(self._delivery.newest(player), self._registered.get(player, 0))

    async def wait_delivered(self, player: Player, version: int, timeout_s: float) -> bool:
        """True once `version` or newer is out and all workers (at least one) serve what is for them; False at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not self._delivery.is_delivered(player, version):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await self._workers.changed.wait(left)
        return True

    async def take_reports(self, sender: str, numbered: Sequence[tuple[int, Report]]) -> Taken:
        """A learner's reports; kept until they are drained. One that was taken before is ignored."""
        new, taken = self._reports.take(sender, numbered)
        for report in new:
            if isinstance(report, WarmReport):
                first = self._warm[report.player].first_nll if report.player in self._warm else report.nll
                self._warm[report.player] = WarmStart(report.done, report.wanted, first, report.nll)
            else:
                self._learner[report.player] = report
        return taken

    async def drain_metrics(self) -> list[StepReport]:
        """Reports since the last call."""
        return self._reports.drain()

    async def stats(self) -> PublisherStats:
        """Versions, pushes and workers of both players. Each call sets their metrics, too."""
        stats = PublisherStats(True, {p: self._player_stats(p) for p in PLAYERS}, self._name)
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
            first=self._delivery.first(player),
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
            transport=self._transport(player),
        )

    def _transport(self, player: Player) -> TransportState:
        fallback = self._fallbacks.get(player)
        if fallback is None:
            return TransportState()
        off = fallback.off_since is not None
        return TransportState(
            fallback.transport, "host" if off else fallback.transport, fallback.failed, fallback.off_since
        )

    def _step(self, player: Player) -> int:
        """Steps done, as last reported; a resumed group first says it with the version that it pushes."""
        pushed = self._versions.newest_step(player)
        learner = self._learner.get(player)
        return pushed if learner is None else max(pushed, learner.step)
