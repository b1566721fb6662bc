"""The publisher under real Ray, with fake workers: the newest version reaches all, and one that hangs is replaced."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from cluster.publisher import WeightPublisher
from cluster.publisher_client import PublisherSink, VersionClient
from protocol.types import WeightManifest


@dataclass
class FakeReport:
    version: int
    pause_s: float
    total_s: float
    checksum_after: str
    moved: bool = True


class FakeWorker:
    """Takes versions as `actors.generation.GenerationWorker` does. Does what the file `trouble` says, once."""

    def __init__(self, versions: VersionClient, trouble: str, slow_s: float = 0.0) -> None:
        self.versions, self.trouble, self.slow_s = versions, Path(trouble), slow_s
        self.version, self.loads = 0, []  # type: ignore[var-annotated]

    async def start(self) -> int:
        found = await self.versions.newest("attacker")
        if found is not None:
            assert int(found[1][0]) == found[0].version
            self.version = max(self.version, found[0].version)
        return self.version

    async def load(self, manifest: WeightManifest, packed: Any, deadline_s: float) -> FakeReport:
        assert packed.nbytes == manifest.nbytes and int(packed[0]) == manifest.version
        if self.trouble.exists():
            what = self.trouble.read_text()
            self.trouble.unlink()
            if what == "hang":
                await asyncio.sleep(3600)
            if what == "block":
                time.sleep(3600)  # noqa: ASYNC251 - the whole process hangs, its event loop too
            if what == "refuse":
                raise ValueError("checksum")
            if what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(self.slow_s)
        self.version = manifest.version
        self.loads.append(manifest.version)
        return FakeReport(manifest.version, 0.01, 0.02, f"sum-{manifest.version}")

    async def seen(self) -> tuple[int, list[int], int]:
        return self.version, self.loads, os.getpid()


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture
def publisher() -> Iterator[Any]:
    handle = ray.remote(WeightPublisher).options(num_cpus=0, max_concurrency=100).remote(1.0, 30.0)
    yield handle
    ray.kill(handle)


def workers(publisher: Any, tmp_path: Path, n: int, slow_s: float = 0.0) -> list[Any]:
    cls = ray.remote(FakeWorker).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=100)
    handles = [cls.remote(VersionClient(publisher), str(tmp_path / f"trouble-{k}"), slow_s) for k in range(n)]
    ray.get(publisher.register.remote("attacker", handles), timeout=30)
    return handles


def push(sink: PublisherSink, version: int, nbytes: int = 2**20) -> None:
    sink.publish(
        WeightManifest("attacker", version, (), nbytes, "sum", step=version), np.full(nbytes, version, np.uint8)
    )


def mine(publisher: Any) -> Any:
    return ray.get(publisher.stats.remote(), timeout=30)["players"]["attacker"]


@pytest.mark.timeout(90)
def test_every_worker_gets_the_newest_version(publisher: Any, tmp_path: Path) -> None:
    sink = PublisherSink(publisher)
    handles = workers(publisher, tmp_path, 2)
    assert sink.wait_delivered("attacker", 0, 30.0)  # both have started
    push(sink, 1)
    assert sink.wait_delivered("attacker", 1, 30.0)
    assert [w["version"] for w in mine(publisher)["workers"]] == [1, 1]
    assert [v for v, _, _ in ray.get([h.seen.remote() for h in handles], timeout=30)] == [1, 1]
    assert not sink.wait_delivered("attacker", 2, 0.2)
    sink.report("attacker", 1, 1, {"loss": 0.5})
    stats = mine(publisher)
    assert (stats["newest"], stats["versions_pushed"], stats["step"], stats["metrics"]) == (1, 1, 1, {"loss": 0.5})
    assert stats["pushes"]["count"] == 2 and stats["pushes"]["pause_s"] == 0.01
    assert [w["checksum"] for w in stats["workers"]] == ["sum-1", "sum-1"]
    (drained,) = ray.get(publisher.drain_metrics.remote())
    assert (drained["player"], drained["step"], drained["version"]) == ("attacker", 1, 1)
    assert ray.get(publisher.drain_metrics.remote()) == []


@pytest.mark.timeout(90)
def test_the_learner_does_not_wait_for_slow_workers_and_queued_versions_are_skipped(
    publisher: Any, tmp_path: Path
) -> None:
    sink = PublisherSink(publisher)
    (worker,) = workers(publisher, tmp_path, 1, slow_s=4.0)
    assert sink.wait_delivered("attacker", 0, 30.0)
    began = time.monotonic()
    for version in range(1, 6):
        push(sink, version)
    assert time.monotonic() - began < 4.0  # less than one of the five loads
    assert sink.wait_delivered("attacker", 5, 30.0)
    version, loads, _ = ray.get(worker.seen.remote(), timeout=30)
    assert version == 5 and loads == [1, 5]
    assert mine(publisher)["superseded"] == 3 and mine(publisher)["evictions"] == {}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("hang", "deadline"), ("block", "deadline"), ("refuse", "ValueError"), ("die", "died")],
)
def test_a_worker_in_trouble_is_replaced_and_brought_to_the_newest(
    publisher: Any, tmp_path: Path, trouble: str, reason: str
) -> None:
    sink = PublisherSink(publisher)
    handles = workers(publisher, tmp_path, 2)
    push(sink, 1)
    assert sink.wait_delivered("attacker", 1, 30.0)
    before = ray.get([h.seen.remote() for h in handles], timeout=30)
    (tmp_path / "trouble-0").write_text(trouble)
    push(sink, 2)
    push(sink, 3)
    assert sink.wait_delivered("attacker", 3, 60.0)
    after = ray.get([h.seen.remote() for h in handles], timeout=30)
    assert [v for v, _, _ in after] == [3, 3]
    assert after[0][2] != before[0][2], "a new process"
    assert after[1][2] == before[1][2], "the other one was left alone"
    assert mine(publisher)["evictions"] == {reason: 1}


@ray.remote(num_cpus=0)
class FakeLearner:
    """Publishes and dies: what it published must outlive it."""

    def publish(self, sink: PublisherSink, version: int) -> None:
        push(sink, version)


@pytest.mark.timeout(90)
def test_a_version_outlives_the_learner_that_published_it(publisher: Any, tmp_path: Path) -> None:
    learner = FakeLearner.remote()
    ray.get(learner.publish.remote(PublisherSink(publisher), 7), timeout=60)
    ray.kill(learner)
    time.sleep(1.0)
    (worker,) = workers(publisher, tmp_path, 1)
    assert PublisherSink(publisher).wait_delivered("attacker", 7, 30.0)
    assert ray.get(worker.seen.remote(), timeout=30)[0] == 7
