"""The life of a worker under the publisher, with handles that fail, hang and are away: who is killed and started anew, and why."""

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError

from actors.weights.update import LoadReport
from cluster.publish import workers
from cluster.publish.delivery import Delivery
from cluster.publish.pushes import PushTimer, count_failure
from cluster.publish.transfer import NativeTransfer
from cluster.publish.versions import Versions
from cluster.publish.workers import Workers
from protocol.errors import DIGEST_MISMATCH, VersionGone
from protocol.recipe import PushConfig
from protocol.roles import PLAYERS
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import NativeUpdate, WeightManifest
from tests.unit.meters import RecordingMeter

GENEROUS_S = 60.0  # where no deadline is meant: a busy machine may take seconds


class Handle:
    """A worker's handle. `faults`: what its next loads or starts do instead; the newest version there is comes with a start."""

    def __init__(self, load: list[Any] | None = None, start: list[Any] | None = None) -> None:
        self.faults = {"load": load or [], "start": start or []}
        self.version = 0
        self.newest = 0
        self.starts = 0
        self.sources: list[Any] = []
        self.load = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._load))
        self.start = SimpleNamespace(remote=self._start)

    async def _fault(self, method: str) -> None:
        if self.faults[method]:
            fault = self.faults[method].pop(0)
            if isinstance(fault, Exception):
                raise fault
            await asyncio.sleep(fault)

    async def _load(self, manifest: WeightManifest, source: Any, limit_s: float, limits: Any) -> LoadReport:
        self.sources.append(source)
        await self._fault("load")
        self.version = manifest.version
        return LoadReport(self.version, f"digest-{self.version}", moved=True)

    async def _start(self) -> int:
        self.starts += 1
        await self._fault("start")
        self.version = self.newest
        return self.version


class Publisher:
    """`Workers` of the attacker, and what they are given."""

    def __init__(self, *handles: Handle, deadline_s: float = GENEROUS_S) -> None:
        self.handles, push = handles, PushConfig(deadline_s=deadline_s)
        self.delivery = Delivery(deadline_s, GENEROUS_S)
        self.versions = Versions("node", lambda node: None, lambda: None)
        self.times, self.checksums = {p: PushTimer() for p in PLAYERS}, dict[str, str]()
        self.workers = Workers(self.delivery, push, GENEROUS_S, self.versions, self.times, self.checksums)
        for k, handle in enumerate(handles):
            self.workers.add("attacker", f"attacker-{k}", handle, period=1)

    async def publish(self, version: int, transfer: NativeTransfer | None = None) -> None:
        buffer = SharedBuffer.create(8)
        await self.versions.take(WeightManifest("attacker", version, (), 8, ""), buffer.file("node"))
        assert self.delivery.publish("attacker", version)
        for handle in self.handles:
            handle.newest = version
        self.workers.push_all(transfer)

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(GENEROUS_S):
            while not condition():
                await self.workers.changed.wait(0.01)

    async def wait_delivered(self, version: int) -> None:
        await self.wait(lambda: self.delivery.is_delivered("attacker", version))

    def evictions(self, worker: str = "attacker-0") -> dict[str, int]:
        return dict(self.delivery.workers("attacker")[worker].evictions)


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Handles that were killed; and pauses that take no time."""
    handles: list[Any] = []
    monkeypatch.setattr(ray, "kill", lambda handle, no_restart: handles.append(handle))
    monkeypatch.setattr(workers, "SETTLE_S", 0.0)
    monkeypatch.setattr(workers, "AGAIN_S", 0.01)
    yield handles


def away() -> ActorUnavailableError:
    return ActorUnavailableError("restarting", b"\0" * 16)


async def test_a_version_reaches_every_worker_and_its_times_and_checksum_are_kept(killed: list[Any]) -> None:
    publisher = Publisher(Handle(), Handle())
    await publisher.wait_delivered(0)
    await publisher.publish(1)
    await publisher.wait_delivered(1)
    assert publisher.checksums == {"attacker-0": "digest-1", "attacker-1": "digest-1"}
    assert publisher.evictions() == {} and killed == []
    (source,) = publisher.handles[0].sources
    assert isinstance(source, SharedFile) and source.node == "node"


@pytest.mark.parametrize(
    ("fault", "reason", "kills"), [(1e6, "deadline", 1), (RuntimeError("odd"), "RuntimeError", 1), (away(), "died", 0)]
)
async def test_a_worker_that_does_not_take_a_version_starts_anew_with_it(
    fault: Any, reason: str, kills: int, killed: list[Any]
) -> None:
    publisher = Publisher(Handle(load=[fault]), deadline_s=1.0 if reason == "deadline" else GENEROUS_S)
    await publisher.wait_delivered(0)
    await publisher.publish(1)
    await publisher.wait_delivered(1)
    assert publisher.evictions() == {reason: 1} and len(killed) == kills
    assert len(publisher.handles[0].sources) == 1, "its start brought it to the version"


async def test_a_worker_that_is_away_is_asked_again_to_start(killed: list[Any]) -> None:
    publisher = Publisher(Handle(start=[away(), away()]))
    await publisher.wait_delivered(0)
    assert publisher.evictions() == {} and killed == []


async def test_a_start_that_fails_is_counted_and_tried_again_in_a_new_process(killed: list[Any]) -> None:
    publisher = Publisher(Handle(start=[RuntimeRayError()]))
    await publisher.wait_delivered(0)
    assert publisher.evictions() == {"start_RuntimeRayError": 1} and len(killed) == 1


@pytest.mark.parametrize(("reason", "kill"), [("engine_lost", False), ("stuck", True)])
async def test_a_worker_that_supervision_gave_up_starts_anew_with_its_version(
    reason: str, kill: bool, killed: list[Any]
) -> None:
    publisher = Publisher(Handle())
    await publisher.publish(1)
    await publisher.wait_delivered(1)
    starts = publisher.handles[0].starts
    publisher.workers.restart("attacker-0", reason, kill)
    publisher.workers.restart("attacker-0", reason, kill)  # asked once more, before the first is done
    await asyncio.sleep(0)
    assert not publisher.delivery.is_delivered("attacker", 1) and publisher.checksums == {}
    await publisher.wait_delivered(1)
    assert publisher.handles[0].starts == starts + 1
    assert publisher.evictions() == {reason: 1} and len(killed) == int(kill)


class RuntimeRayError(ray.exceptions.RayError):
    """Something of Ray's that does not pass."""


@pytest.mark.parametrize("update", [NativeUpdate({"how": 1}), None])
async def test_a_push_that_waits_for_its_learner_gets_what_it_says_or_the_bytes_that_are_held(update: Any) -> None:
    publisher, transfer = Publisher(Handle()), NativeTransfer(1)
    await publisher.wait_delivered(0)
    await publisher.publish(1, transfer)
    await publisher.wait(lambda: list(transfer.pushes) == ["attacker-0"])
    assert list(transfer.pushes) == ["attacker-0"] and publisher.handles[0].sources == []
    transfer.settle(update)
    await publisher.wait_delivered(1)
    (source,) = publisher.handles[0].sources
    assert source == update if update else isinstance(source, SharedFile)


@pytest.mark.parametrize("error", [VersionGone("attacker", 1), FileNotFoundError()])
async def test_a_worker_that_cannot_have_the_bytes_serves_on_and_is_pushed_to_again(
    error: Exception, killed: list[Any]
) -> None:
    publisher = Publisher(Handle(load=[error]))
    await publisher.wait_delivered(0)
    await publisher.publish(1)
    await publisher.wait_delivered(1)
    assert publisher.evictions() == {} and killed == []
    assert len(publisher.handles[0].sources) == 2


async def test_a_worker_that_is_registered_again_is_not_started_again() -> None:
    publisher = Publisher(Handle())
    await publisher.wait_delivered(0)
    publisher.workers.add("attacker", "attacker-0", publisher.handles[0], period=1)
    assert publisher.handles[0].starts == 1 and publisher.delivery.is_delivered("attacker", 0)
    assert not publisher.workers.restart("attacker-9", "stuck", True), (
        "supervision may know one that is not registered yet"
    )


async def test_pushes_and_their_failures_are_metered(killed: list[Any], metered: RecordingMeter) -> None:
    publisher = Publisher(Handle(load=[RuntimeError("odd")]), Handle())
    await publisher.wait_delivered(0)
    await publisher.publish(1)
    await publisher.wait_delivered(1)
    counted = metered.counters
    assert (
        counted[("pushes_total", "attacker", "loaded")] == 1
        and counted[("pushes_total", "attacker", "RuntimeError")] == 1
    )
    assert len(metered.histograms[("push_seconds", "attacker", "whole")]) == 1
    assert counted[("worker_evictions_total", "attacker", "RuntimeError")] == 1


@pytest.mark.parametrize(("reason", "n"), [(DIGEST_MISMATCH, 1), (f"start_{DIGEST_MISMATCH}", 1), ("died", 0)])
def test_failures_with_a_wrong_digest_are_counted_apart(reason: str, n: int, metered: RecordingMeter) -> None:
    count_failure("attacker", reason)
    assert metered.counters[("pushes_total", "attacker", reason)] == 1
    assert metered.counters[("digest_mismatches_total", "attacker")] == n
