"""Carries out what `delivery.Delivery` decides: starts the workers, pushes versions to them, and replaces those that fail.

Invariants:

- **every push has a deadline**: a worker that fails or is late is killed, Ray restarts it, its own start loads the version that is
  for it, and it counts as healthy only when it has said so. Counted by reason: the phase that was late, if it can still say.
- **no worker stays between two states**: whatever ends a push or a start, the worker is healthy after it or is started anew.

- **a version that is gone costs no worker**: who could not get its bytes serves on, and is pushed to again.

It knows a worker only as a handle with `start`, `load` and `join`. It belongs to one event loop.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import ray
import structlog
from ray.exceptions import RayActorError, RayError

from cluster.calls import Unavailable, ask
from cluster.commit import ChangeSignal
from cluster.publish.agreement import Agreement
from cluster.publish.delivery import Delivery, Push
from cluster.publish.pushes import PushTimer, count_failure, count_push, reason_of
from cluster.publish.transfer import NativeTransfer
from cluster.publish.versions import HeldVersion, Versions
from protocol import metrics as m
from protocol.errors import DIGEST_MISMATCH
from protocol.meter import meter
from protocol.recipe import PushConfig
from protocol.roles import Player

log = structlog.get_logger(__name__)

# Of the deadline, for the worker itself: it says which phase was late. Past all of it, it does not answer.
WORKER_SHARE = 0.9
SETTLE_S = 0.5  # after a kill: long enough that the old process does not answer for the new one
AGAIN_S = 1.0  # between two asks of a worker that is not back yet
GONE = ("version_gone", "FileNotFoundError")  # the worker's word for bytes that it could not get


class Workers:
    """See the module's docstring.

    Args:
        delivery: decides.
        push: deadlines of a worker that takes one version.
        start_deadline_s: for a worker to start, engine and first version included.
        versions: those that are held.
        timers: of each player's pushes; every push is added.
        checksums: of each worker's parameters after its last push, by name; kept here.
        note_change: told that a player has a worker that is new, or a new process; but not where a native push brought it down.
    """

    def __init__(
        self,
        delivery: Delivery,
        push: PushConfig,
        start_deadline_s: float,
        versions: Versions,
        timers: Mapping[Player, PushTimer],
        checksums: dict[str, str],
        note_change: Callable[[Player], None] = lambda _: None,
    ) -> None:
        self._delivery, self._push, self._start_deadline_s = delivery, push, start_deadline_s
        self._versions, self._timers, self._checksums = versions, timers, checksums
        self._note_change = note_change
        self._agreement = Agreement()
        self._handles: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.changed = ChangeSignal()  # some worker serves another version than before

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def add(self, player: Player, name: str, handle: Any, period: int) -> None:
        """A worker of the player, which is started (again, if somebody has already) and then kept newest. Once is enough."""
        if name in self._handles:
            return
        self._handles[name] = handle
        self._note_change(player)
        self._spawn(self._start(name, self._delivery.register(player, name, time.monotonic(), period)))

    async def join(self, transport: str, init_infos: Mapping[str, dict[str, Any]]) -> None:
        """Lets each named worker meet a learner. Raises what the first of them does, or `TimeoutError`."""
        limit_s = self._push.join_s
        joining = [self._handles[name].join.remote(transport, info, limit_s) for name, info in init_infos.items()]
        async with asyncio.timeout(self._push.deadline_s):  # each keeps the limit itself, and says so
            await asyncio.gather(*joining)

    def push_all(self, transfer: NativeTransfer | None = None) -> None:
        """Begins every push that is due. Those of the version of `transfer` wait for its learner."""
        for push in self._delivery.next_pushes(time.monotonic()):
            version = self._versions.get(push.player, push.version)
            if version is None:  # it was lost with a node: its learner leaves it again, or a newer one
                self._delivery.postpone(push.worker, push.ticket)
            elif transfer is None or version.manifest.version != transfer.version:
                self._spawn(self._deliver(push, version, None))
            else:
                transfer.pushes[push.worker] = self._spawn(self._deliver(push, version, transfer))

    async def _deliver(self, push: Push, version: HeldVersion, transfer: NativeTransfer | None) -> None:
        began, update = time.monotonic(), None
        try:
            # Without a retry of Ray's: a worker that dies is started anew, and its start brings it to the newest version.
            load = self._handles[push.worker].load.options(max_task_retries=0)
            # What the learner does not send by then, the worker must still get from here.
            update = None if transfer is None else await transfer.wait(self._push.join_s)
            source = update or await self._versions.file_on(push.player, push.version, version.source)
            limit_s = WORKER_SHARE * (push.deadline_s - time.monotonic())
            answer = load.remote(version.manifest, source, limit_s, self._push.deadlines)
            report = await asyncio.wait_for(answer, push.deadline_s - began)
        except Exception as error:  # whatever it was, the worker must not stay "delivering" for ever
            if reason_of(error) in GONE:
                await self._postpone(push, version)
                return
            if not isinstance(error, RayError | TimeoutError):
                log.error("push_failed", worker=push.worker, exc_info=error)
            if update is None:
                self._note_change(push.player)
            await self._replace(push.worker, push.ticket, reason_of(error), kill=not isinstance(error, RayActorError))
            return
        if report.version < push.version:
            await self._replace(push.worker, push.ticket, "not_loaded", kill=True)
        elif not self.confirm(push.player, report.version, report.layout, push.worker, report.checksum_after):
            await self._replace(push.worker, push.ticket, DIGEST_MISMATCH, kill=True)
        elif self._delivery.record_load(push.worker, push.ticket, report.version):
            took_s = time.monotonic() - began
            self._timers[push.player].add(took_s, report.pause_s, report.moved, report.phases)
            count_push(push.player, took_s, report.pause_s, report.phases, version.manifest.nbytes)
            self._checksums[push.worker] = report.checksum_after
            self._after_change()

    def confirm(self, player: Player, version: int, layout: str, worker: str, digest: str) -> bool:
        """Whether a worker that loaded a version may serve it. Those that hold other parameters than most are started anew."""
        may = self._agreement.report(player, version, layout, worker, digest)
        for other in self._agreement.list_dissenters(player, version, layout):
            if other != worker and self.restart(other, DIGEST_MISMATCH, kill=True):
                count_failure(player, DIGEST_MISMATCH)
        return may

    async def _postpone(self, push: Push, version: HeldVersion) -> None:
        """The version's bytes could not be had: another try, or a newer version, follows."""
        log.warning("version_gone", worker=push.worker, version=push.version)
        count_failure(push.player, GONE[0])
        for node in [*version.files]:
            await self._versions.check(push.player, push.version, node)
        await asyncio.sleep(AGAIN_S)
        if self._delivery.postpone(push.worker, push.ticket):
            self.push_all()

    def restart(self, worker: str, reason: str, kill: bool) -> bool:
        """A healthy worker does not serve, as supervision found: it is started anew, its process ended before if `kill`.

        False if it is not healthy, or not known yet: a push or a start that is under way has a deadline of its own.
        """
        if worker not in self._handles:
            return False
        ticket = self._delivery.retire(worker, reason, time.monotonic())
        if ticket is None:
            return False
        self._note_change(self._delivery.player(worker))
        self._spawn(self._begin_again(worker, ticket, reason, kill))
        return True

    async def _replace(self, worker: str, ticket: int, reason: str, kill: bool) -> None:
        again = self._delivery.evict(worker, ticket, reason, time.monotonic())
        if again is not None:
            count_failure(self._delivery.player(worker), reason)
            await self._begin_again(worker, again, reason, kill)

    async def _begin_again(self, worker: str, ticket: int, reason: str, kill: bool) -> None:
        log.warning("worker_evicted", worker=worker, reason=reason)
        meter().inc(m.EVICTIONS, player=self._delivery.player(worker), reason=reason)
        self._checksums.pop(worker, None)
        self._agreement.forget(worker)
        if kill:
            ray.kill(self._handles[worker], no_restart=False)
        await asyncio.sleep(SETTLE_S)
        await self._start(worker, ticket)

    async def _start(self, worker: str, ticket: int) -> None:
        limit_s = self._start_deadline_s
        try:
            version = await ask(
                self._handles[worker], "start", part=f"generation-{worker}", limit_s=limit_s, pause_s=AGAIN_S
            )
        except (RayError, TimeoutError) as error:
            cause = error.__cause__ or error if isinstance(error, Unavailable) else error
            await asyncio.sleep(AGAIN_S)
            kill = not isinstance(cause, RayActorError)  # one that is gone Ray restarts by itself
            self._spawn(self._replace(worker, ticket, f"start_{reason_of(cause)}", kill))
            return
        if self._delivery.record_start(worker, ticket, version):
            self._after_change()

    def _after_change(self) -> None:
        self.changed.notify()
        self.push_all()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery_failed", exc_info=error)
