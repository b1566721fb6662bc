"""The WeightPublisher actor: takes over each version from its learner and brings it to that player's generation workers.

A thin shell around `delivery.Delivery`. Invariants:

- **the learner goes on**: `publish` returns once the publisher holds the bytes, so that they outlive the learner; no worker is
  waited for. On one node the bytes stay where the learner staged them, and the workers read them there; between nodes Ray's object
  store carries them, once to each node.
- **nobody writes what is read**: a version's buffer is given back to the learner only when no worker loads it and none will.
- **every push has a deadline**: a worker that fails or is late is killed, Ray restarts it, its own start loads the version that is
  for it, and it counts as healthy only when it has said so. Counted by reason: the phase that was late, if it can still say.

`cluster` wraps it with `ray.remote(max_concurrency=...)`. It knows a worker only as a handle with `start` and `load`. A restarted
publisher is empty: it has to be told its workers (`register`) again.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ray
import structlog
from ray.exceptions import RayActorError, RayError

from cluster.commit import Changed
from cluster.publish.delivery import Delivery, Push
from cluster.publish.pushes import PushTimer, Round, Version, fetched, put, reason_of
from cluster.publish.stats import PlayerPushes, PublisherStats, StepReport, WorkerState
from protocol.recipe import PushConfig
from protocol.roles import PLAYERS, Player
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import NativeUpdate, WeightManifest

log = structlog.get_logger(__name__)

WORKER_SHARE = (
    0.9  # of the deadline, for the worker itself: it says which phase was late; past all of it, it does not answer
)
SETTLE_S = 0.5  # after a kill: long enough that the old process does not answer for the new one
AGAIN_S = 1.0  # between two asks of a worker that is not back yet


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
        self._push, self._start_deadline_s, self._periods, self._native = push, start_deadline_s, periods, native
        self._rounds: dict[Player, Round] = {}
        self._delivery = Delivery(push.deadline_s, start_deadline_s)
        self._handles: dict[str, Any] = {}
        self._held: dict[Player, dict[int, Version]] = {p: {} for p in PLAYERS}
        self._checksums: dict[str, str] = {}
        self._timers: dict[Player, PushTimer] = {p: PushTimer() for p in PLAYERS}
        self._learner: dict[Player, StepReport] = {}  # its newest
        self._reports: list[StepReport] = []
        self._changed = Changed()
        self._tasks: set[asyncio.Task[None]] = set()
        self._node: str = ray.get_runtime_context().get_node_id()

    async def node(self) -> str:
        """Ray's id of the node that versions are held on."""
        return self._node

    async def register(self, player: Player, workers: Sequence[Any]) -> None:
        """The player's generation workers, all of them. Each is started (again, if somebody has already) and then kept newest."""
        for k, handle in enumerate(workers):
            name = f"{player}-{k}"
            self._handles[name] = handle
            period = self._periods[k] if self._periods else 1
            self._spawn(self._start(name, self._delivery.register(player, name, time.monotonic(), period)))

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
            buffer = SharedBuffer.open(where) if isinstance(where, SharedFile) else await fetched(where[0])
        if not self._delivery.publish(player, manifest.version, manifest.last):
            return [manifest.version]
        self._held[player][manifest.version] = Version(manifest, buffer)
        if player in self._native:
            self._rounds[player] = Round(manifest.version)
        self._push_all(self._rounds.get(player))
        return self._give_back(player)

    # -- versions that a learner sends itself

    async def expecting(self, player: Player, version: int) -> list[str]:
        """Workers that wait for a version from its learner."""
        found = self._rounds[player]
        return list(found.pushes) if found.version == version else []

    async def join(self, transport: str, init_infos: Mapping[str, bytes]) -> None:
        """Lets each named worker meet the learner that calls. Raises what the first of them does, or `TimeoutError`."""
        joining = [self._handles[name].join.remote(transport, info) for name, info in init_infos.items()]
        async with asyncio.timeout(self._push.deadline_s):
            await asyncio.gather(*(_awaited(answer) for answer in joining))

    async def send(self, player: Player, version: int, payload: bytes) -> bool:
        """Tells those who wait how to receive. Returns when each has answered or was given up; True if all serve the version."""
        found = self._rounds[player]
        if found.version != version or found.bytes.done():
            return False  # too late: they were sent another way
        found.bytes.set_result(NativeUpdate(payload))
        await asyncio.gather(*found.pushes.values(), return_exceptions=True)
        return all(self._delivery.workers(player)[name].version >= version for name in found.pushes)

    async def not_sent(self, player: Player, version: int) -> None:
        """The learner could not: whoever still waits gets the bytes from here."""
        found = self._rounds[player]
        if found.version == version and not found.bytes.done():
            found.bytes.set_result(None)

    # -- versions that are sent from here

    def _give_back(self, player: Player) -> list[int]:
        held = self._held[player]
        over = sorted(held.keys() - self._delivery.needed(player))
        for version in over:
            del held[version]
        return over

    async def newest(self, player: Player, worker: str = "") -> tuple[WeightManifest, SharedFile] | None:
        """The version that `worker` is to start with, and where its bytes are; without a name the newest. None: the model folder.

        The bytes may be replaced by a newer version's as soon as there is one: the checksum shows it.
        """
        version = self._delivery.choice(worker) if worker in self._handles else self._delivery.newest(player)
        found = self._held[player].get(version)
        return None if found is None else (found.manifest, found.buffer.file(self._node))

    async def carried(self, player: Player, version: int) -> list[Any]:
        """An object ref to a version's bytes (uint8 array), for a worker on another node. Ray fetches it once for each node."""
        found = self._held[player][version]
        if found.ref is None:
            found.ref = asyncio.ensure_future(asyncio.to_thread(put, found.buffer))
        return [await found.ref]

    async def newest_version(self, player: Player) -> int:
        """The newest version that was published; 0 before the first."""
        return self._delivery.newest(player)

    async def wait_delivered(self, player: Player, version: int, timeout_s: float) -> bool:
        """True once `version` or newer is out and all workers (at least one) serve what is for them; False at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not self._delivery.delivered(player, version):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await self._changed.wait(left)
        return True

    async def report(self, player: Player, step: int, version: int, metrics: dict[str, float]) -> None:
        """Metrics of a learner step; kept until they are drained."""
        report = StepReport(player, step, version, time.time(), metrics)
        self._learner[player] = report
        self._reports.append(report)

    async def drain_metrics(self) -> list[StepReport]:
        """Reports since the last call."""
        drained, self._reports = self._reports, []
        return drained

    async def stats(self) -> PublisherStats:
        """Versions, pushes and workers of both players."""
        return PublisherStats(True, {p: self._player_stats(p) for p in PLAYERS})

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
        )

    def _step(self, player: Player) -> int:
        """Steps done, as last reported; a resumed group first says it with the version that it pushes."""
        pushed = max((v.manifest.step for v in self._held[player].values()), default=0)
        learner = self._learner.get(player)
        return pushed if learner is None else max(pushed, learner.step)

    def _push_all(self, round_: "Round | None" = None) -> None:
        for push in self._delivery.next_pushes(time.monotonic()):
            version = self._held[push.player][push.version]
            if round_ is None or version.manifest.version != round_.version:
                self._spawn(self._deliver(push, version, None))
            else:
                round_.pushes[push.worker] = self._spawn(self._deliver(push, version, round_))

    async def _deliver(self, push: Push, version: "Version", round_: "Round | None") -> None:
        began = time.monotonic()
        try:
            # Without a retry of Ray's: a worker that dies is started anew, and its start brings it to the newest version.
            load = self._handles[push.worker].load.options(max_task_retries=0)
            source = version.buffer.file(self._node) if round_ is None else await self._from_learner(round_, version)
            limit_s = WORKER_SHARE * (push.deadline_s - time.monotonic())
            answer = _awaited(load.remote(version.manifest, source, limit_s, self._push.deadlines))
            report = await asyncio.wait_for(answer, push.deadline_s - began)
        except Exception as error:  # whatever it was, the worker must not stay "delivering" for ever
            if not isinstance(error, RayError | TimeoutError):
                log.error("push_failed", worker=push.worker, exc_info=error)
            await self._replace(push.worker, push.ticket, reason_of(error), kill=not isinstance(error, RayActorError))
            return
        if report.version < push.version:
            await self._replace(push.worker, push.ticket, "not_loaded", kill=True)
        elif self._delivery.loaded(push.worker, push.ticket, report.version):
            self._timers[push.player].add(time.monotonic() - began, report.pause_s, report.moved, report.phases)
            self._checksums[push.worker] = report.checksum_after
            self._after_change()

    async def _from_learner(self, round_: "Round", version: "Version") -> NativeUpdate | SharedFile:
        """How the learner sends it; our own file if it does not say so in half the time there is."""
        limit_s = min(self._push.deadlines.send_s, self._push.deadline_s / 2)
        await asyncio.wait([round_.bytes], timeout=limit_s)
        if not round_.bytes.done():
            round_.bytes.set_result(None)
        return round_.bytes.result() or version.buffer.file(self._node)

    async def _replace(self, worker: str, ticket: int, reason: str, kill: bool) -> None:
        again = self._delivery.evict(worker, ticket, reason, time.monotonic())
        if again is None:
            return
        log.warning("worker_evicted", worker=worker, reason=reason)
        self._checksums.pop(worker, None)
        if kill:
            ray.kill(self._handles[worker], no_restart=False)
        await asyncio.sleep(SETTLE_S)
        await self._start(worker, again)

    async def _start(self, worker: str, ticket: int) -> None:
        deadline = time.monotonic() + self._start_deadline_s
        while True:
            try:
                answer = _awaited(self._handles[worker].start.remote())
                version = await asyncio.wait_for(answer, deadline - time.monotonic())
                break
            except (RayError, TimeoutError) as error:
                away = isinstance(error, RayActorError)
                if not away or time.monotonic() + AGAIN_S > deadline:
                    await asyncio.sleep(AGAIN_S)
                    self._spawn(self._replace(worker, ticket, f"start_{reason_of(error)}", kill=not away))
                    return
                await asyncio.sleep(AGAIN_S)
        if self._delivery.started(worker, ticket, version):
            self._after_change()

    def _after_change(self) -> None:
        self._changed.notify()
        self._push_all()

    def _spawn(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery_failed", exc_info=error)


async def _awaited(ref: Any) -> Any:
    return await ref
