"""The judge pool over real Ray actors, which are killed on the way; and an API judge's account, which outlives them."""

import asyncio
import os
import pickle
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.sandbox.replies import answer
from cluster.sandbox.rule_judge import RuleJudge
from cluster.sandbox.world import find_task, train_seeds
from judge.cache import VerdictCache
from judge.pool import JudgePool
from judge.stats import ApiUsage, PoolStats
from judge.worker import JudgeWorker
from protocol.recipe import ApiConfig, JudgeConfig
from protocol.types import JudgeRequest, Verdict
from tests.integration.ray_actors import Actors
from tests.integration.supervision import pool_of, supervised
from tests.openai_server import OpenAIServer, world_answer

ATTEMPTS = 5


class MortalWorker(JudgeWorker):
    """The real worker, slow enough to be killed in the middle of a call, and willing to say which process it is."""

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        await asyncio.sleep(0.05)
        return await super().judge(requests)

    async def pid(self) -> int:
        return os.getpid()


async def verdicts_of_another_process(worker: Any, than: int) -> int:
    """Verdicts that the worker gave since it came back; 0 while it is not back."""
    try:
        return int((await worker.stats.remote()).verdicts) if await worker.pid.remote() != than else 0
    except ray.exceptions.RayActorError:
        return 0


@pytest.mark.timeout(300)
async def test_the_death_of_one_of_two_workers_loses_no_verdict(actors: Actors) -> None:
    actor = ray.remote(num_cpus=0.1, max_restarts=-1, max_concurrency=64)(MortalWorker)
    workers = [actors.keep(actor.remote(JudgeConfig(), rules=RuleJudge)) for _ in range(2)]
    victim = await workers[0].pid.remote()
    await asyncio.gather(*(worker.start.remote() for worker in workers))
    asked = pool_of(workers)
    pool = JudgePool(asked, deadline_s=60.0, attempts=3)
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
    assert stats == PoolStats(verdicts=200)
    assert asked.stats().moved >= 1

    # Ray starts the dead one again, supervision its judge, and the pool uses it.
    async with asyncio.timeout(200.0), supervised(workers):
        while not await verdicts_of_another_process(workers[0], than=victim):
            await asyncio.gather(pool.judge(batches[0]), pool.judge(batches[1]))
            await asyncio.sleep(0.1)


@pytest.mark.timeout(600)
async def test_an_api_judge_outlives_its_endpoint_and_its_process_and_its_account_goes_on(
    actors: Actors, tmp_path: Path
) -> None:
    with OpenAIServer(world_answer) as server:
        api = ApiConfig(base_url=server.url, model="fake", key_env="", retries=0, timeout_s=30.0, budget_tokens=10**7)
        config = JudgeConfig(kind="api", rubrics="sandbox", workers=1, api=api)
        actor = ray.remote(num_cpus=0.1, max_restarts=-1, max_concurrency=64)(MortalWorker)
        worker = actors.keep(actor.remote(config, ledger=str(tmp_path / "ledger.jsonl")))
        await worker.start.remote()
        pool = JudgePool(
            pool_of([worker]), deadline_s=200.0, attempts=ATTEMPTS, cache=VerdictCache(100), key="api:fake"
        )
        requests = [
            JudgeRequest("compliance", s.category, s.text, (f"sure , to {s.text} first check every side .", "no ."))
            for s in train_seeds()[:8]
        ]

        async def account() -> ApiUsage:
            usage: ApiUsage = (await worker.stats.remote()).usage
            return usage

        first = await pool.judge(requests[:4])
        assert [v.scores for v in first] == [(8.0, 0.5)] * 4
        for fault, why in (("garbage", "gave up: endpoint answered no JSON"), (503, "judge down: server error 503")):
            server.fault = fault  # type: ignore[assignment]
            assert {v.failure for v in await pool.judge(requests[4:])} == {why}
            assert await pool.judge(requests[:4]) == first  # remembered
        assert (await account()).unmetered == 4  # the garbage, asked for once; the 503s cost nothing

        server.fault = "hang"
        hanging = asyncio.create_task(pool.judge(requests[4:]))
        while server.in_flight < 4:  # noqa: ASYNC110  # another thread's count
            await asyncio.sleep(0.02)
        os.kill(await worker.pid.remote(), signal.SIGKILL)
        server.fault = "ok"
        async with supervised([worker]):
            assert [v.scores for v in await hanging] == [(8.0, 0.5)] * 4
        after = await account()
    assert after.requests == 4 + 4 + ATTEMPTS * 4 + 4 + 4
    assert after.unmetered == 4 + 4  # what was in flight when the process died is paid for, too
    assert pool.stats().cache_hits == 8


@pytest.mark.timeout(300)
async def test_a_healthy_but_slow_endpoint_fails_nothing_and_is_paid_once(actors: Actors) -> None:
    """128 questions in 64 calls at 4 places of 0.3 s: the last call waits for 9 s, three deadlines."""
    with OpenAIServer(world_answer, delay_s=0.3) as server:
        api = ApiConfig(base_url=server.url, model="fake", key_env="", concurrency=4, timeout_s=30.0)
        config = JudgeConfig(kind="api", rubrics="sandbox", workers=1, api=api)
        worker = actors.keep(ray.remote(num_cpus=0.1, max_concurrency=64)(JudgeWorker).remote(config))
        await worker.start.remote()
        made = JudgePool(pool_of([worker]), deadline_s=3.0, attempts=3, admits=api.concurrency)
        pool = pickle.loads(pickle.dumps(made))  # as it comes to a rollout worker
        requests = [
            JudgeRequest("compliance", s.category, s.text, (f"sure , to {s.text} first check every side .", "no ."))
            for s in train_seeds()[:128]
        ]
        answered = await asyncio.gather(*(pool.judge(requests[k : k + 2]) for k in range(0, 128, 2)))
        account = (await worker.stats.remote()).usage
    assert [v.scores for verdicts in answered for v in verdicts] == [(8.0, 0.5)] * 128
    assert pool.stats() == PoolStats(verdicts=128)
    assert (account.requests, account.unmetered, server.most_in_flight) == (128, 0, 4)
