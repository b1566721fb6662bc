"""Seconds of a whole push, and how long generation stands still in it, for a 0.5B-parameter model in bfloat16 on one node.

Everything is real: the bfloat16 partitions that a bfloat16 learner computes with are staged into a shared buffer, the publisher
actor hands the version to a GenerationWorker (Ray actor, vLLM on the CPU), which is answering requests all the while. A push counts
from the first byte staged until the worker serves the version, that is generates with it; its parameters are verified before. The
peer is one memcpy of the same bytes, both ends touched before.

The first pushes are not counted: their buffers and mappings are new memory, which a run meets once.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.publish.client import PublisherSink
from protocol.recipe import GenerationConfig, PushConfig
from protocol.types import Ask, Sampling
from tests.benchmarks.harness import Result, write_results
from tests.benchmarks.shapes import SHAPES, make_model

WARM_UP, ROUNDS = 3, 5  # the learner's buffers are two, or three while one is still read
RUNNING = 4  # requests in flight
CONFIG = GenerationConfig(dtype="bfloat16", max_model_len=1024, kv_cache_gib=0.25, max_num_seqs=8)
ASK = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=200)


class Learner:
    """The sending half of a learner of one rank."""

    def __init__(self, folder: Path, sink: PublisherSink, device: str = "cpu") -> None:
        import torch
        from safetensors.torch import load_file

        from learners.weights.buffers import StagingPool
        from learners.weights.handover import Handover

        torch.set_num_threads(
            1
        )  # as a learner rank's and an engine's are by default: more wait for each other on two cores
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        files = sorted(folder.glob("*.safetensors"))  # a large model has several
        self._tensors = {name: t for file in files for name, t in load_file(file, device=device).items()}
        self._shapes = [(name, tuple(tensor.shape)) for name, tensor in self._tensors.items()]
        self._pool = StagingPool()
        self._sink = sink
        self._publisher = Handover(self._sink, self._pool)
        self._version = 0

    def nbytes(self) -> int:
        """Of a version."""
        return 2 * sum(tensor.numel() for tensor in self._tensors.values())

    def push(self) -> tuple[float, float]:
        """Seconds from staging the next version until the worker has said that it serves it; and those of the staging alone."""
        from learners.weights.buffers import array_of
        from learners.zero3.staging import Destination, gather_packed
        from protocol.packed import RunningChecksum, total_bytes
        from protocol.types import WeightManifest

        self._version += 1
        shards = {name: tensor.mul_(1.01).view(-1) for name, tensor in self._tensors.items()}
        taken = []

        def allocate(nbytes: int) -> Any:
            taken.append(self._pool.take(nbytes))
            return array_of(taken[0])

        began = time.perf_counter()
        checksum = RunningChecksum()
        specs, _ = gather_packed(self._shapes, shards, "bfloat16", Destination(allocate, checksum=checksum))
        staged_s = time.perf_counter() - began
        manifest = WeightManifest("attacker", self._version, specs, total_bytes(specs), "", self._version)
        self._publisher.offer(manifest, taken[0], checksum)
        if not self._sink.wait_delivered("attacker", self._version, 120.0):
            raise RuntimeError(f"version {self._version} was not delivered")
        return time.perf_counter() - began, staged_s

    def close(self) -> None:
        self._publisher.drain(60.0)
        self._publisher.close()


def memcpy(nbytes: int, rooms: list[Any]) -> float:
    """Seconds to copy so many bytes."""
    import numpy as np

    if not rooms:
        rooms += [np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)]
    began = time.perf_counter()
    np.copyto(rooms[1], rooms[0])
    return time.perf_counter() - began


async def keep_asking(worker: Any, stop: asyncio.Event, k: int) -> int:
    """Tokens of requests that follow each other without a gap."""
    tokens = seed = 0
    while not stop.is_set():
        seed += 1
        ask = Ask("bench", ({"role": "user", "content": "words " * 20},), (1000 * k + seed,), ASK)
        tokens += sum(len(c.token_ids) for c in await worker.generate.remote(ask))
    return tokens


async def pushes(
    worker: Any, publisher: Any, push: Callable[[], tuple[float, float]], copy: Callable[[], float]
) -> dict[str, list[float]]:
    """The figures of each counted push, and of a copy after each."""
    stop = asyncio.Event()
    asking = [asyncio.create_task(keep_asking(worker, stop, k)) for k in range(RUNNING)]
    await asyncio.sleep(10)
    found: dict[str, list[float]] = {"push": [], "stall": [], "memcpy": []}
    for number in range(WARM_UP + ROUNDS):
        seconds, staged_s = await asyncio.to_thread(push)
        stats = (await publisher.stats.remote()).players["attacker"].pushes
        copied = await asyncio.to_thread(copy)
        last = {name: round(phase.last_s, 3) for name, phase in stats.phases.items()}
        print(f"push {seconds:.3f} s, staged in {staged_s:.3f}, memcpy {copied:.3f}, phases {last}", flush=True)
        if number >= WARM_UP:
            for name, value in (("push", seconds), ("stall", stats.pause_s), ("memcpy", copied)):
                found[name].append(value)
        await asyncio.sleep(2)
    stop.set()
    if min(await asyncio.gather(*asking)) == 0:
        raise RuntimeError("no tokens were sampled while the pushes were under way")
    return found


def measure() -> list[Result]:
    """Medians of several pushes."""
    import ray

    from actors.generation import GenerationWorker
    from cluster.publish.actor import WeightPublisher
    from cluster.publish.client import VersionClient

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make_model(model, SHAPES["0.5B"])
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        publisher = ray.remote(WeightPublisher).options(num_cpus=0, max_concurrency=100).remote(PushConfig(), 300.0)
        worker = ray.remote(GenerationWorker).options(num_cpus=0, max_concurrency=100)
        worker = worker.remote("attacker", str(model), CONFIG, VersionClient(publisher, "attacker-0"))
        ray.get(publisher.register.remote("attacker", [worker]))
        ray.get(worker.start.remote(), timeout=300)
        learner, rooms = Learner(model, PublisherSink(publisher)), list[Any]()
        nbytes = learner.nbytes()
        found = asyncio.run(pushes(worker, publisher, learner.push, lambda: memcpy(nbytes, rooms)))
        learner.close()
        ray.get(worker.shutdown.remote(), timeout=60)
        ray.shutdown()
    push, stall, copied = (statistics.median(found[name]) for name in ("push", "stall", "memcpy"))
    what = f"median of {ROUNDS} pushes of {nbytes / 1e9:.2f} GB, {RUNNING} requests running"
    return [
        Result("push-host", push, copied, "s", 4.0, False, f"{what}; other: one memcpy"),
        Result("push-stall", stall, push, "s", 0.25, False, f"{what}; other: the whole push"),
    ]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
