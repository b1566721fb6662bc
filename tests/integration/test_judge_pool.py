"""The judge pool over real Ray actors, one of which is killed on the way."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence

import pytest
import ray

from judge.pool import JudgePool
from judge.worker import JudgeWorker
from judge.world import answer, find_task, train_seeds
from protocol.recipe import JudgeConfig
from protocol.types import JudgeRequest, Verdict


class MortalWorker(JudgeWorker):
    """The real worker, slow enough to be killed in the middle of a call, and willing to say which process it is."""

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        await asyncio.sleep(0.05)
        return await super().judge(requests)

    async def pid(self) -> int:
        return os.getpid()


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.mark.timeout(120)
async def test_the_death_of_one_of_two_workers_loses_no_verdict(cluster: None) -> None:
    actor = ray.remote(num_cpus=0.1, max_restarts=-1, max_concurrency=64)(MortalWorker)
    workers = [actor.remote(JudgeConfig()) for _ in range(2)]
    victim = await workers[0].pid.remote()
    pool = JudgePool(workers, deadline_s=20.0, attempts=3)
    seeds = train_seeds()[:200]
    requests = [
        JudgeRequest("compliance", seed.category, seed.text, (answer(task, 0, [0, 1, 2]), "no ."))
        for seed in seeds
        if (task := find_task(seed.text)) is not None
    ]
    batches = [requests[k : k + 4] for k in range(0, len(requests), 4)]

    async def play(k: int, batch: list[JudgeRequest]) -> list[Verdict]:
        await asyncio.sleep(0.04 * k)
        if k == len(batches) // 3:
            os.kill(victim, signal.SIGKILL)
        return await pool.judge(batch)

    answered = await asyncio.gather(*(play(k, batch) for k, batch in enumerate(batches)))
    verdicts = [verdict for batch in answered for verdict in batch]
    assert [v.scores for v in verdicts] == [(10.0, 0.5)] * 200
    stats = pool.stats()
    assert stats["verdicts"] == 200
    assert stats["failed"] == 0
    assert stats["calls_failed"] >= 1

    for _ in range(100):  # Ray has started the dead one again, under another process, and the pool uses it
        try:
            assert await workers[0].pid.remote() != victim
            break
        except ray.exceptions.RayActorError:
            await asyncio.sleep(0.2)
    else:
        pytest.fail("the killed worker did not come back in 20 s")
    await asyncio.sleep(1.5)
    for batch in batches[:4]:
        await pool.judge(batch)
    assert (await workers[0].stats.remote())["verdicts"] > 0
