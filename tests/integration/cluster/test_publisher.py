"""The publisher under real Ray, with fake workers: the newest version reaches all, and one that hangs is replaced."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import ray

from actors.errors import PushLate, WorkerBroken
from cluster.calls import NAMESPACE, NamedActor, ask_blocking
from cluster.publish.actor import WeightPublisher
from cluster.publish.client import PublisherSink, VersionClient
from cluster.publish.native import NativeSink
from cluster.publish.stats import PhaseTimes, PlayerPushes, PublisherStats, TransportState, WarmStart
from learners.weights.buffers import StagingPool, array_of
from learners.weights.handover import Handover
from protocol.packed import RunningChecksum
from protocol.recipe import DeadlinesConfig, PushConfig
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import NativeUpdate, WeightManifest
from tests.integration.ray_actors import Actors


@dataclass
class FakeReport:
    version: int
    pause_s: float
    phases: dict[str, float]
    checksum_after: str
    moved: bool = True
    layout: str = "float32"


class FakeWorker:
    """Takes versions as `actors.generation.GenerationWorker` does. Does what the file `trouble` says, once."""

    fails_to_join = False

    def __init__(self, versions: VersionClient, trouble: str, slow_s: float = 0.0) -> None:
        self.versions, self.trouble, self.slow_s = versions, Path(trouble), slow_s
        self.version = 0
        self.loads: list[int] = []
        self.natively: list[int] = []
        self.joined: list[tuple[str, int]] = []

    async def start(self) -> int:
        found = await self.versions.newest("attacker")
        if found is not None:
            packed = SharedBuffer.open(found[1]).view if isinstance(found[1], SharedFile) else found[1]
            assert int(packed[0]) == found[0].version
            self.version = max(self.version, found[0].version)
        return self.version

    async def load(self, manifest: WeightManifest, file: Any, deadline_s: float, limits: DeadlinesConfig) -> FakeReport:
        if isinstance(file, NativeUpdate):
            packed: Any = [file.info["first"]]
        else:
            packed = SharedBuffer.open(await self.versions.fetch(manifest, file)).view
            assert packed.nbytes == manifest.nbytes
        assert int(packed[0]) == manifest.version
        if self.trouble.exists():
            what = self.trouble.read_text()
            self.trouble.unlink()
            while what == "wait" and not self.trouble.with_suffix(".over").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if what == "hang":
                await asyncio.sleep(3600)
            if what == "block":
                time.sleep(3600)  # noqa: ASYNC251 - the whole process hangs, its event loop too
            if what == "refuse":
                raise ValueError("checksum")
            if what == "late":
                raise PushLate("push: load was not done", "load_deadline")
            if what == "broken":
                raise WorkerBroken("loading failed half-way", "load_deadline")
            if what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(self.slow_s)
        assert int(packed[0]) == manifest.version, "nobody writes what is read"
        self.version = manifest.version
        self.loads.append(manifest.version)
        if isinstance(file, NativeUpdate):
            self.natively.append(manifest.version)
        return FakeReport(manifest.version, 0.01, {"load": 0.02}, f"sum-{manifest.version}")

    async def join(self, transport: str, native: dict[str, Any], limit_s: float) -> None:
        self.joined.append((transport, native["rank_offset"]))

    async def places(self) -> list[tuple[str, int]]:
        return self.joined

    async def native(self) -> list[int]:
        return self.natively

    async def seen(self) -> tuple[int, list[int], int]:
        return self.version, self.loads, os.getpid()


KEPT: dict[int, SharedBuffer] = {}  # a learner's buffers: it has them open for as long as their versions are held


def publisher_of(actors: Actors, *args: Any) -> Any:
    """A publisher; its arguments are `WeightPublisher`'s."""
    return actors.keep(ray.remote(WeightPublisher).options(num_cpus=0, max_concurrency=100).remote(*args))


@pytest.fixture
def publisher(actors: Actors) -> Any:
    return publisher_of(actors, PushConfig(deadline_s=6.0), 30.0)


def workers(actors: Actors, publisher: Any, tmp_path: Path, n: int, slow_s: float = 0.0) -> list[Any]:
    cls = ray.remote(FakeWorker).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=100)
    handles = [
        actors.keep(cls.remote(VersionClient(publisher), str(tmp_path / f"trouble-{k}"), slow_s)) for k in range(n)
    ]
    ray.get(publisher.register.remote("attacker", handles), timeout=60)
    return handles


def push(sink: PublisherSink, version: int, nbytes: int = 2**20) -> None:
    packed = SharedBuffer.create(nbytes)
    np.frombuffer(packed.view, np.uint8)[:] = version
    KEPT[version] = packed
    sink.publish(WeightManifest("attacker", version, (), nbytes, "sum", step=version), packed)


def mine(publisher: Any) -> PlayerPushes:
    stats: PublisherStats = ray.get(publisher.stats.remote(), timeout=60)
    return stats.players["attacker"]


@pytest.mark.timeout(240)
def test_every_worker_gets_the_newest_version(actors: Actors, publisher: Any, tmp_path: Path) -> None:
    sink = PublisherSink(publisher)
    handles = workers(actors, publisher, tmp_path, 2)
    assert sink.wait_delivered("attacker", 0, 30.0)  # both have started
    assert sink.newest("attacker") == 0
    push(sink, 1)
    assert sink.wait_delivered("attacker", 1, 60.0)
    assert sink.newest("attacker") == 1 and sink.newest("defender") == 0
    assert [w.version for w in mine(publisher).workers] == [1, 1]
    assert [v for v, _, _ in ray.get([h.seen.remote() for h in handles], timeout=60)] == [1, 1]
    assert not sink.wait_delivered("attacker", 2, 0.2)
    sink.report("attacker", 1, 1, {"loss": 0.5})
    assert sink.flush(30.0)
    stats = mine(publisher)
    assert (stats.newest, stats.versions_pushed, stats.step, stats.metrics) == (1, 1, 1, {"loss": 0.5})
    assert stats.pushes.count == 2 and stats.pushes.pause_s == 0.01
    assert stats.pushes.phases == {"load": PhaseTimes(last_s=0.02, mean_s=0.02)}
    assert [w.checksum for w in stats.workers] == ["sum-1", "sum-1"]
    assert sink.flush(30.0)
    (drained,) = ray.get(publisher.drain_metrics.remote())
    assert (drained.player, drained.step, drained.version) == ("attacker", 1, 1)
    assert ray.get(publisher.drain_metrics.remote()) == []
    for done, nll in ((1, 4.0), (2, 1.5)):
        sink.report_warm("defender", done, 3, {"nll": nll})
    assert sink.flush(30.0)
    warm = ray.get(publisher.stats.remote(), timeout=60).players
    assert (warm["attacker"].warm, warm["defender"].warm) == (WarmStart(), WarmStart(2, 3, 4.0, 1.5))
    assert warm["defender"].step == 0 and ray.get(publisher.drain_metrics.remote()) == [], "no steps of the run"


@pytest.mark.timeout(240)
def test_a_buffer_comes_back_only_when_no_worker_reads_it_any_more(
    actors: Actors, publisher: Any, tmp_path: Path
) -> None:
    """The learner writes a buffer again as soon as its version is given back; the workers look at it before and after."""
    sink = PublisherSink(publisher)
    workers(actors, publisher, tmp_path, 2, slow_s=0.5)
    assert sink.wait_delivered("attacker", 0, 60.0)
    free: list[SharedBuffer] = []
    lent: dict[int, SharedBuffer] = {}
    made = 0
    for version in range(1, 21):
        made += not free
        packed = lent[version] = free.pop() if free else SharedBuffer.create(2**20)
        np.frombuffer(packed.view, np.uint8)[:] = version
        manifest = WeightManifest("attacker", version, (), 2**20, "sum", step=version)
        holding = sink.publish(manifest, packed)
        assert sink.publish(manifest, packed) == holding, "asked twice, as after an answer that was lost"
        free += [lent.pop(v) for v in lent.keys() - holding.versions]
        time.sleep(0.1)
    assert sink.wait_delivered("attacker", 20, 60.0)
    assert mine(publisher).evictions == {}
    assert made <= 2 + 2, "the newest, the one being staged, and one for each worker"


@pytest.mark.timeout(240)
def test_the_learner_does_not_wait_for_slow_workers_and_queued_versions_are_skipped(
    actors: Actors, tmp_path: Path
) -> None:
    publisher = publisher_of(actors, PushConfig(deadline_s=60.0), 60.0)
    sink = PublisherSink(publisher)
    (worker,) = workers(actors, publisher, tmp_path, 1)
    assert sink.wait_delivered("attacker", 0, 60.0)
    (tmp_path / "trouble-0").write_text("wait")
    push(sink, 1)
    while (tmp_path / "trouble-0").exists():  # until it loads version 1
        time.sleep(0.02)
    for version in range(2, 6):
        push(sink, version)
    assert ray.get(worker.seen.remote(), timeout=60)[1] == [], "five versions were pushed before one was loaded"
    (tmp_path / "trouble-0.over").touch()
    assert sink.wait_delivered("attacker", 5, 60.0)
    version, loads, _ = ray.get(worker.seen.remote(), timeout=60)
    assert version == 5 and loads == [1, 5]
    assert mine(publisher).superseded == 3 and mine(publisher).evictions == {}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("hang", "deadline"),
        ("block", "deadline"),
        ("refuse", "ValueError"),
        ("late", "load_deadline"),
        ("broken", "load_deadline"),
        ("die", "died"),
    ],
)
def test_a_worker_in_trouble_is_replaced_and_brought_to_the_newest(
    actors: Actors, publisher: Any, tmp_path: Path, trouble: str, reason: str
) -> None:
    sink = PublisherSink(publisher)
    handles = workers(actors, publisher, tmp_path, 2)
    push(sink, 1)
    assert sink.wait_delivered("attacker", 1, 60.0)
    before = ray.get([h.seen.remote() for h in handles], timeout=60)
    (tmp_path / "trouble-0").write_text(trouble)
    push(sink, 2)
    push(sink, 3)
    assert sink.wait_delivered("attacker", 3, 60.0)
    after = ray.get([h.seen.remote() for h in handles], timeout=60)
    assert [v for v, _, _ in after] == [3, 3]
    assert after[0][2] != before[0][2], "a new process"
    assert after[1][2] == before[1][2], "the other one was left alone"
    assert mine(publisher).evictions == {reason: 1}


@ray.remote(num_cpus=0)
class FakeLearner:
    """Publishes and dies: what it published must outlive it."""

    def publish(self, sink: PublisherSink, version: int) -> None:
        push(sink, version)


@pytest.mark.timeout(240)
def test_a_version_outlives_the_learner_that_published_it(actors: Actors, publisher: Any, tmp_path: Path) -> None:
    learner = FakeLearner.remote()
    ray.get(learner.publish.remote(PublisherSink(publisher), 7), timeout=60)
    ray.kill(learner)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(learner.publish.remote(PublisherSink(publisher), 8), timeout=60)
    (worker,) = workers(actors, publisher, tmp_path, 1)
    assert PublisherSink(publisher).wait_delivered("attacker", 7, 60.0)
    assert ray.get(worker.seen.remote(), timeout=60)[0] == 7


class FakeEngine:
    """vLLM's trainer engine as it drives its client; its bytes are in the message."""

    made: ClassVar[list[tuple[str, int]]] = []
    closed = 0

    def __init__(self, transport: str, processes: int, client: Any, source: Any) -> None:
        self.client, self.source = client, source
        if FakeWorker.fails_to_join:
            raise ConnectionError("no card")
        client.init_weight_transfer_engine({"rank_offset": 1, "world_size": processes})
        FakeEngine.made.append((transport, processes))

    def send_weights(self) -> None:
        self.client.start_weight_update()
        self.client.update_weights({"first": self.source._packed.view[0]})
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        FakeEngine.closed += 1


@pytest.mark.timeout(300)
def test_a_learner_that_sends_itself_loses_a_failing_worker_and_goes_on_with_those_that_are_well(
    actors: Actors, tmp_path: Path
) -> None:
    config = PushConfig(deadline_s=8.0)
    publisher = publisher_of(actors, config, 60.0, (), {"attacker": "nccl"})
    handles = workers(actors, publisher, tmp_path, 2)
    sink = NativeSink(publisher, "nccl", config, 2, FakeEngine)
    assert sink.wait_delivered("attacker", 0, 60.0)
    push(sink, 1)
    assert sink.wait_delivered("attacker", 1, 60.0)
    assert FakeEngine.made == [("nccl", 5)], "the learner, and two processes of each worker"
    assert ray.get([h.places.remote() for h in handles], timeout=60) == [[("nccl", 1)], [("nccl", 3)]]

    (tmp_path / "trouble-0").write_text("hang")
    push(sink, 2)
    assert FakeEngine.closed == 1, "a group with a worker that hangs is given up"
    assert sink.wait_delivered("attacker", 2, 60.0)
    assert mine(publisher).evictions == {"deadline": 1}
    push(sink, 3)
    assert FakeEngine.made[1:] == [("nccl", 5)]
    assert sink.wait_delivered("attacker", 3, 60.0)
    natively = ray.get([h.native.remote() for h in handles], timeout=60)
    assert natively == [[3], [1, 2, 3]], "the replaced one got version 2 at its start"


@pytest.mark.timeout(240)
def test_where_no_group_comes_about_the_publisher_sends_the_bytes(
    actors: Actors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeWorker, "fails_to_join", True)
    config = PushConfig(deadline_s=8.0)
    publisher = publisher_of(actors, config, 60.0, (), {"attacker": "nccl"})
    (worker,) = workers(actors, publisher, tmp_path, 1)
    sink = NativeSink(publisher, "nccl", config, 1, FakeEngine)
    assert sink.wait_delivered("attacker", 0, 60.0)
    push(sink, 1)
    assert sink.wait_delivered("attacker", 1, 60.0)
    assert ray.get(worker.native.remote(), timeout=60) == [] and mine(publisher).evictions == {}


@pytest.mark.timeout(240)
def test_a_transport_whose_join_hangs_costs_no_worker_and_is_off_from_the_third_version_on(
    actors: Actors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of the group never comes: the worker keeps the deadline, the bytes go another way, and the summary says so."""
    config = PushConfig(deadline_s=8.0, deadlines=DeadlinesConfig(send_s=1.0))
    publisher = publisher_of(actors, config, 60.0, (), {"attacker": "nccl"})
    handles = workers(actors, publisher, tmp_path, 2)
    sink = NativeSink(publisher, "nccl", config, 1, HangingEngine)
    assert sink.wait_delivered("attacker", 0, 60.0)
    pids = [pid for _, _, pid in ray.get([h.seen.remote() for h in handles], timeout=60)]
    for version in (1, 2, 3):
        began = time.monotonic()
        push(sink, version)
        assert sink.wait_delivered("attacker", version, 60.0)
        took_s = time.monotonic() - began
    assert HangingEngine.made == 2 and took_s < 1.0, "the third version did not wait for a group"
    stats = mine(publisher)
    assert (stats.evictions, stats.newest) == ({}, 3)
    assert stats.transport == TransportState("nccl", "host", 2, off_since=2)
    assert [pid for _, _, pid in ray.get([h.seen.remote() for h in handles], timeout=60)] == pids


class HangingEngine:
    """A rendezvous that waits for ever."""

    made = 0

    def __init__(self, transport: str, processes: int, client: Any, source: Any) -> None:
        HangingEngine.made += 1
        time.sleep(3600)


@pytest.mark.timeout(240)
def test_a_publisher_that_dies_is_restarted_and_gets_everything_again(actors: Actors, tmp_path: Path) -> None:
    """Its learner leaves the newest version again, reports that the driver has not had come again, and no worker is restarted."""
    cls = ray.remote(MortalPublisher).options(
        num_cpus=0, max_concurrency=100, max_restarts=-1, name="publisher-that-dies", namespace=NAMESPACE
    )
    actors.keep(cls.remote(PushConfig(deadline_s=20.0), 60.0))
    publisher: Any = NamedActor("publisher-that-dies")
    sink = PublisherSink(publisher)
    handles = workers(actors, publisher, tmp_path, 2)
    handover = Handover(sink, StagingPool(), look_s=0.2)
    offer(handover, 1)
    handover.drain(30.0)
    assert sink.wait_delivered("attacker", 1, 60.0)
    sink.report("attacker", 1, 1, {"loss": 0.5})
    assert sink.flush(30.0)
    pids = [pid for _, _, pid in ray.get([h.seen.remote() for h in handles], timeout=60)]

    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(publisher.die.remote(), timeout=60)
    offer(handover, 2)  # while it is away
    handover.drain(60.0)
    # As the driver does, which asks again where a restart is not over yet.
    ask_blocking(publisher, "register", "attacker", handles, 1, part="publisher", limit_s=60.0)
    assert sink.wait_delivered("attacker", 2, 60.0)
    assert [v for v, _, _ in ray.get([h.seen.remote() for h in handles], timeout=60)] == [2, 2]
    assert [pid for _, _, pid in ray.get([h.seen.remote() for h in handles], timeout=60)] == pids
    deadline = time.monotonic() + 30
    while not (drained := ray.get(publisher.drain_metrics.remote(), timeout=60)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [r.step for r in drained] == [1]

    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(publisher.die.remote(), timeout=60)
    late = ray.remote(FakeWorker).options(num_cpus=0, max_concurrency=10)
    starting = actors.keep(late.remote(VersionClient(publisher), str(tmp_path / "trouble-9"))).start.remote()
    ask_blocking(publisher, "register", "attacker", handles, 2, part="publisher", limit_s=60.0)
    assert ray.get(starting, timeout=60) == 2, "it waited for the version that the learner left again"
    handover.close()


class MortalPublisher(WeightPublisher):
    """Dies when it is told to."""

    async def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def offer(handover: Handover, version: int) -> None:
    packed = SharedBuffer.create(2**20)
    array_of(packed)[:] = version
    running = RunningChecksum()
    running.add(array_of(packed))
    handover.offer(WeightManifest("attacker", version, (), 2**20, "", step=version), packed, running)
