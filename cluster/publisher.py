"""The WeightPublisher actor: takes over each version from its learner and brings it to that player's generation workers.

A thin shell around `delivery.Delivery`. Invariants:

- **the learner goes on**: `publish` returns once the weights are the publisher's own (one copy in shared memory, so they outlive
  the learner); no worker is waited for.
- **every push has a deadline**: a worker that fails or is late is killed, Ray restarts it, its own start loads the newest
  version, and it counts as healthy only when it has said so. Counted by reason.
- **nothing older**: only the newest version of each player is kept.

`cluster` wraps it with `ray.remote(max_concurrency=...)`. It knows a worker only as a handle with `start` and `load`. A restarted
publisher is empty: it has to be told its workers (`register`) again.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import ray
import structlog
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.delivery import Delivery, Push
from cluster.replay.commit import Changed
from protocol.roles import PLAYERS, Player
from protocol.types import WeightManifest

log = structlog.get_logger(__name__)

MARGIN_S = 5.0  # the worker keeps the deadline itself and says what was late; past this it does not answer at all
SETTLE_S = 0.5  # after a kill: long enough that the old process does not answer for the new one
AGAIN_S = 1.0  # between two asks of a worker that is not back yet


class WeightPublisher:
    """See the module's docstring.

    Args:
        deadline_s: for one worker to take one version, all phases; `push.deadline_s`.
        start_deadline_s: for a worker to start, engine and newest version included; `generation.start_deadline_s`.
    """

    def __init__(self, deadline_s: float, start_deadline_s: float = 300.0) -> None:
        self._deadline_s, self._start_deadline_s = deadline_s, start_deadline_s
        self._delivery = Delivery(deadline_s + MARGIN_S, start_deadline_s)
        self._handles: dict[str, Any] = {}
        self._weights: dict[Player, tuple[WeightManifest, Any]] = {}  # manifest, our own object ref
        self._checksums: dict[str, str] = {}
        self._pushes: dict[Player, PushTimes] = {p: PushTimes() for p in PLAYERS}
        self._learner: dict[Player, dict[str, Any]] = {}
        self._reports: list[dict[str, Any]] = []
        self._changed = Changed()
        self._tasks: set[asyncio.Task[None]] = set()

    async def register(self, player: Player, workers: Sequence[Any]) -> None:
        """The player's generation workers, all of them. Each is started (again, if somebody has already) and then kept newest."""
        for k, handle in enumerate(workers):
            name = f"{player}-{k}"
            self._handles[name] = handle
            self._spawn(self._start(name, self._delivery.register(player, name, time.monotonic())))

    async def publish(self, manifest: WeightManifest, packed: Sequence[Any]) -> None:
        """A new version. `packed` is one object ref to its bytes, in a list so that it is not fetched for the call.

        A version that is not newer than the newest is ignored. Raises `TimeoutError` if the bytes cannot be had in `deadline_s`.
        """
        player = manifest.player
        if manifest.version <= self._delivery.newest(player):
            log.warning("version_not_newer", player=player, version=manifest.version)
            return
        array = await asyncio.wait_for(_awaited(packed[0]), self._deadline_s)
        own = await asyncio.to_thread(ray.put, array)
        if self._delivery.publish(player, manifest.version):
            self._weights[player] = (manifest, own)
            self._push_all()

    async def newest(self, player: Player) -> tuple[WeightManifest, Any] | None:
        """The newest version and its bytes (uint8 array); None before the first."""
        found = self._weights.get(player)
        return None if found is None else (found[0], await found[1])

    async def wait_delivered(self, player: Player, version: int, timeout_s: float) -> bool:
        """True once every registered worker (at least one) serves `version` or a newer one; False at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not self._delivery.delivered(player, version):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await self._changed.wait(left)
        return True

    async def report(self, player: Player, step: int, version: int, metrics: dict[str, float]) -> None:
        """Metrics of a learner step; kept until they are drained."""
        self._learner[player] = {"step": step, "metrics": metrics}
        self._reports.append(
            {"player": player, "step": step, "version": version, "time": time.time(), "metrics": metrics}
        )

    async def drain_metrics(self) -> list[dict[str, Any]]:
        """Reports since the last call: player, step, version, time (Unix seconds), metrics."""
        drained, self._reports = self._reports, []
        return drained

    async def stats(self) -> dict[str, Any]:
        """``{"players": {player: {newest, versions_pushed, superseded, step, metrics, pushes, evictions, workers}}}``.

        ``pushes``: total_s and pause_s of the last push to any worker, their means, how many there were, and how many of them
        moved the worker's weights (by checksum). ``evictions``: by reason. ``workers``: name, state, version (-1 while it
        starts), checksum of its parameters after the last push.
        """
        return {"players": {p: self._player_stats(p) for p in PLAYERS}}

    def _player_stats(self, player: Player) -> dict[str, Any]:
        workers = self._delivery.workers(player)
        counts = self._delivery.counts(player)
        evictions: dict[str, int] = {}
        for view in workers.values():
            for reason, n in view.evictions.items():
                evictions[reason] = evictions.get(reason, 0) + n
        return {
            "newest": self._delivery.newest(player),
            "versions_pushed": counts["published"] - counts["superseded"],
            "superseded": counts["superseded"],
            "step": self._step(player),
            "metrics": self._learner.get(player, {}).get("metrics"),
            "pushes": self._pushes[player].read(),
            "evictions": evictions,
            "workers": [
                {"name": n, "state": w.state, "version": w.version, "checksum": self._checksums.get(n, "")}
                for n, w in workers.items()
            ],
        }

    def _step(self, player: Player) -> int:
        """Steps done, as last reported; a resumed group first says it with the version that it pushes."""
        pushed = self._weights[player][0].step if player in self._weights else 0
        return max(pushed, self._learner.get(player, {}).get("step", 0))

    def _push_all(self) -> None:
        for push in self._delivery.next_pushes(time.monotonic()):
            manifest, own = self._weights[push.player]
            self._spawn(self._deliver(push, manifest, own))

    async def _deliver(self, push: Push, manifest: WeightManifest, own: Any) -> None:
        began = time.monotonic()
        try:
            # Without a retry of Ray's: a worker that dies is started anew, and its start brings it to the newest version.
            load = self._handles[push.worker].load.options(max_task_retries=0)
            answer = _awaited(load.remote(manifest, own, self._deadline_s))
            report = await asyncio.wait_for(answer, push.deadline_s - began)
        except Exception as error:  # whatever it was, the worker must not stay "delivering" for ever
            if not isinstance(error, RayError | TimeoutError):
                log.error("push_failed", worker=push.worker, exc_info=error)
            await self._replace(push.worker, push.ticket, _reason(error), kill=not isinstance(error, RayActorError))
            return
        if report.version < push.version:
            await self._replace(push.worker, push.ticket, "not_loaded", kill=True)
        elif self._delivery.loaded(push.worker, push.ticket, report.version):
            self._pushes[push.player].add(time.monotonic() - began, report.pause_s, report.moved)
            self._checksums[push.worker] = report.checksum_after
            self._after_change()

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
                    self._spawn(self._replace(worker, ticket, f"start_{_reason(error)}", kill=not away))
                    return
                await asyncio.sleep(AGAIN_S)
        if self._delivery.started(worker, ticket, version):
            self._after_change()

    def _after_change(self) -> None:
        self._changed.notify()
        self._push_all()

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery_failed", exc_info=error)


class PushTimes:
    """Seconds of pushes to single workers: last and mean."""

    def __init__(self) -> None:
        self._count = self._moved = 0
        self._total_s = self._pause_s = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, total_s: float, pause_s: float, moved: bool) -> None:
        """One push: from sending to its answer, the part of it without sampling, and whether the worker's weights changed."""
        self._count += 1
        self._moved += moved
        self._total_s += total_s
        self._pause_s += pause_s
        self._last = (total_s, pause_s)

    def read(self) -> dict[str, float | int]:
        """Empty of times before the first push."""
        if self._last is None:
            return {"count": 0}
        return {
            "count": self._count,
            "moved": self._moved,
            "total_s": self._last[0],
            "pause_s": self._last[1],
            "mean_total_s": self._total_s / self._count,
            "mean_pause_s": self._pause_s / self._count,
        }


def _reason(error: BaseException) -> str:
    """Why a worker is replaced, in one word."""
    if isinstance(error, RayActorError):
        return "died"
    if isinstance(error, RayTaskError):
        cause = error.cause
        return "deadline" if isinstance(cause, TimeoutError) else type(cause).__name__
    return "deadline" if isinstance(error, TimeoutError) else type(error).__name__


async def _awaited(ref: Any) -> Any:
    return await ref
