"""`ipc` and `nccl` with the real vLLM: what arrives GPU to GPU is, parameter by parameter, what arrives through host memory."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from actors.generation import GenerationWorker
from cluster.plan.transports import Transport
from cluster.publish.actor import WeightPublisher
from cluster.publish.client import PublisherSink, VersionClient
from cluster.publish.native import NativeSink
from protocol.recipe import GenerationConfig, PushConfig
from protocol.shared import SharedBuffer
from tests.integration.tiny_qwen import pack_model, save_tiny, tiny_model

CARDS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.skipif(CARDS == 0, reason="no GPU here: the transports between GPUs were not tried"),
    pytest.mark.timeout(600),
]
PUSH = PushConfig(deadline_s=60.0)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Learner:
    """A process with a GPU that publishes through a sink, as rank 0 of a learner group does."""

    def __init__(self, sink: PublisherSink) -> None:
        self.sink = sink

    def publish(self, version: int, seed: int) -> bool:
        manifest, array = pack_model(tiny_model(seed).to(torch.bfloat16), version)
        packed = SharedBuffer.create(manifest.nbytes)
        np.frombuffer(packed.view, np.uint8)[:] = array
        self.sink.publish(manifest, packed)
        return self.sink.wait_delivered("attacker", version, 120.0)


async def from_a_folder(folder: Path, config: GenerationConfig) -> dict[str, str]:
    """The parameters of a worker that reads its weights from a folder."""
    cls = ray.remote(GenerationWorker).options(num_gpus=config.gpus_per_worker)
    worker = cls.remote("attacker", str(folder), config)
    try:
        found: dict[str, str] = await worker.checksums.remote()
        return found
    finally:
        await worker.shutdown.remote()
        ray.kill(worker)


@pytest.mark.parametrize(
    ("transport", "share"),
    [
        ("ipc", 0.3),
        pytest.param("nccl", 1.0, marks=pytest.mark.skipif(CARDS < 2, reason="nccl needs two GPUs, one for each side")),
    ],
)
def test_versions_arrive_whole(transport: Transport, share: float, tmp_path: Path) -> None:
    config = GenerationConfig(
        dtype="bfloat16", max_model_len=512, max_num_seqs=8, gpus_per_worker=share, gpu_memory_utilization=0.1
    )
    for seed in (0, 1, 2):
        save_tiny(tmp_path / str(seed), seed)
    publisher: Any = ray.remote(WeightPublisher).options(num_cpus=0, max_concurrency=100)
    publisher = publisher.remote(PUSH, 300.0, (), {"attacker": transport})
    worker: Any = ray.remote(GenerationWorker).options(num_gpus=share, max_concurrency=100)
    worker = worker.remote("attacker", str(tmp_path / "0"), config, VersionClient(publisher, "attacker-0"))
    ray.get(publisher.register.remote("attacker", [worker]))
    ray.get(worker.start.remote(), timeout=300)
    sink = NativeSink(publisher, transport, PUSH, tensor_parallel=1)
    learner: Any = ray.remote(Learner).options(num_gpus=share, num_cpus=0).remote(sink)
    for version, seed in ((1, 1), (2, 2)):
        assert ray.get(learner.publish.remote(version, seed), timeout=240)
    stats = ray.get(publisher.stats.remote()).players["attacker"]
    assert (stats.evictions, stats.pushes.count) == ({}, 2)
    assert "send" not in stats.pushes.phases, "nothing was read from host memory"
    served = ray.get(worker.checksums.remote(), timeout=60)
    ray.get(worker.shutdown.remote(), timeout=60)
    for actor in (worker, learner, publisher):
        ray.kill(actor)
    assert served == asyncio.run(from_a_folder(tmp_path / "2", config))
