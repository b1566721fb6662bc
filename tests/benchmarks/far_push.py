"""A push of a 0.5B model's bytes to two workers on another node: what crossed, how many copies, and who stood still meanwhile.

    python -m tests.benchmarks.far_push FILE

Two Ray nodes on this machine, each with its own object store. Learner and publisher are on the first, two workers on the second.
They are real where they take bytes in (`VersionClient`, `receive`: mapped, verified) and have no engine. What is measured:

- `publisher-stop`: the longest time that the publisher's event loop stood still in a push, seen by a coroutine in it;
- `report-wait`: the longest time that the other learner's report waited for the publisher's answer meanwhile;
- `push-bytes`: bytes that crossed between the nodes, for each byte of the version; `push-copies`: buffers on the other node.
"""

import asyncio
import contextlib
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from cluster.publish.actor import WeightPublisher
from cluster.publish.client import PublisherSink, VersionClient
from cluster.publish.stats import StepReport
from protocol.recipe import DeadlinesConfig, PushConfig
from protocol.shared import SharedBuffer
from protocol.types import TensorSpec, WeightManifest
from tests.benchmarks.harness import Result, write_results

NBYTES = 988 << 20  # 0.5 billion parameters in bfloat16
WARM_UP, ROUNDS = 2, 3
STOP_LIMIT_S = 0.05


class Watched(WeightPublisher):
    """Notes how long its loop stood still, and what was read from it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._longest_s, self._read = 0.0, 0
        self._watch: asyncio.Task[None] | None = None

    async def begin_watch(self) -> None:
        """From now on."""
        self._longest_s, self._read = 0.0, 0
        if self._watch is None:
            self._watch = asyncio.create_task(self._tick())

    async def end_watch(self) -> tuple[float, int]:
        """Longest stop, seconds; bytes read by other nodes."""
        return self._longest_s, self._read

    async def read(self, player: Any, version: int, offset: int, nbytes: int) -> Any:
        part = await super().read(player, version, offset, nbytes)
        self._read += len(part)
        return part

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self._longest_s, last = max(self._longest_s, now - last - 0.001), now


class Taker:
    """A generation worker without an engine."""

    def __init__(self, versions: VersionClient) -> None:
        from actors.weights.receive import Mappings

        self._versions, self._mappings = versions, Mappings()
        self._inodes: list[int] = []

    async def start(self) -> int:
        return 0

    async def load(self, manifest: WeightManifest, file: Any, deadline_s: float, limits: DeadlinesConfig) -> Any:
        from actors.weights.receive import receive
        from actors.weights.update import LoadReport

        began = time.perf_counter()
        buffer = await asyncio.to_thread(receive, manifest, await self._versions.fetch(manifest, file), self._mappings)
        self._inodes.append(buffer.inode)
        return LoadReport(manifest.version, manifest.checksum, True, 0.0, {"send": time.perf_counter() - began})

    async def inodes(self) -> list[int]:
        return self._inodes


class OtherLearner(threading.Thread):
    """Reports every 10 ms, and notes the longest wait for an answer."""

    def __init__(self, publisher: Any) -> None:
        super().__init__(daemon=True)
        self._publisher, self.over, self.longest_s = publisher, threading.Event(), 0.0

    def run(self) -> None:
        import ray

        number = 0
        while not self.over.is_set():
            number += 1
            began = time.perf_counter()
            report = StepReport("defender", number, 1, 0.0, {"loss": 1.0})
            ray.get(self._publisher.take_reports.remote("bench", [(number, report)]), timeout=120)
            self.longest_s = max(self.longest_s, time.perf_counter() - began)
            time.sleep(0.01)


def push(sink: PublisherSink, packed: SharedBuffer, version: int) -> float:
    """Seconds until both workers have verified it."""
    from protocol.packed import checksum

    np.frombuffer(packed.view, np.uint8)[:: 1 << 20] = version
    tensors = (TensorSpec("w", "bfloat16", (NBYTES // 2,), 0, NBYTES),)
    manifest = WeightManifest("attacker", version, tensors, NBYTES, checksum(packed.view), version)
    began = time.perf_counter()
    sink.publish(manifest, packed)
    if not sink.wait_delivered("attacker", version, 300.0):
        raise RuntimeError(f"version {version} was not delivered")
    return time.perf_counter() - began


def measure() -> list[Result]:
    """Medians and longest of several pushes."""
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 512 << 20})
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    other = cluster.add_node(num_cpus=2, object_store_memory=512 << 20)
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.shutdown)
        stack.callback(ray.shutdown)
        cluster.wait_for_nodes()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        there = NodeAffinitySchedulingStrategy(other.node_id, soft=False)
        config = PushConfig(deadline_s=300.0, deadlines=DeadlinesConfig(send_s=300.0))
        actor = ray.remote(Watched).options(num_cpus=0, max_concurrency=100, scheduling_strategy=here)
        publisher = actor.remote(config, 300.0)
        taker = ray.remote(Taker).options(num_cpus=0, max_concurrency=10, scheduling_strategy=there)
        takers = [taker.remote(VersionClient(publisher, f"attacker-{k}")) for k in range(2)]
        ray.get(publisher.register.remote("attacker", takers), timeout=120)
        sink, buffers = PublisherSink(publisher), [SharedBuffer.create(NBYTES) for _ in range(2)]
        if not sink.wait_delivered("attacker", 0, 120.0):
            raise RuntimeError("the workers did not start")
        took, stops, waits, crossed = [], [], [], []
        for version in range(1, WARM_UP + ROUNDS + 1):
            ray.get(publisher.begin_watch.remote(), timeout=60)
            learner = OtherLearner(publisher)
            learner.start()
            seconds = push(sink, buffers[version % 2], version)
            learner.over.set()
            learner.join(120.0)
            longest_s, read = ray.get(publisher.end_watch.remote(), timeout=60)
            print(
                f"push {seconds:.2f} s, longest stop {longest_s * 1e3:.1f} ms, longest report {learner.longest_s * 1e3:.1f} ms, "
                f"{read / NBYTES:.2f} of the version crossed",
                flush=True,
            )
            if version > WARM_UP:
                took.append(seconds)
            stops.append(longest_s)  # of the first ones above all: their memory is new
            waits.append(learner.longest_s)
            crossed.append(read / NBYTES)
        copies = {inode for inodes in ray.get([t.inodes.remote() for t in takers], timeout=60) for inode in inodes}
    what = (
        f"{ROUNDS} pushes of {NBYTES / 1e9:.2f} GB to 2 workers on another node, median {statistics.median(took):.2f} s"
    )
    return [
        Result("publisher-stop", max(stops), STOP_LIMIT_S, "s", 1.0, False, f"longest of {what}; other: the limit"),
        Result(
            "report-wait", max(waits), STOP_LIMIT_S, "s", 10.0, False, f"longest of {what}; other: the loop's limit"
        ),
        Result("push-bytes", max(crossed), 1.0, "versions", 1.001, False, f"{what}; other: once"),
        Result("push-copies", len(copies), 2.0, "buffers", 1.0, False, f"in all of {what}; other: two, used in turn"),
    ]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
