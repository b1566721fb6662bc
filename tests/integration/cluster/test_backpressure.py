"""Backpressure on the real vLLM: an engine whose KV cache is too small for the games preempts, and fewer games are dealt."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.generation import GenerationWorker
from cluster.plan.replay import plan_replay
from cluster.replay.actor import ReplayBuffer
from cluster.replay.rules.backpressure import BackpressureStats
from cluster.supervise.engine_load import report_once
from protocol.recipe import parse_recipe
from protocol.types import Ask, Sampling
from tests.integration.tiny_qwen import save_tiny
from tests.unit.cluster.replay.rules.test_facts import SEEDS, record

BLOCKS = 12  # of 128 tokens in the KV cache; a game's two answers take up to 6 of them
BLOCK_BYTES = 128 * 2 * 2 * 32 * 4  # keys and values of two layers, one head of 32, float32
GAMES = 32


class Handle:
    """What `report_once` asks of an actor's handle, for an object of this process."""

    def __init__(self, owner: Any, *methods: str) -> None:
        for name in methods:
            method = getattr(owner, name)
            setattr(self, name, type("Method", (), {"remote": staticmethod(method)}))


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_full_kv_cache_cuts_the_limit_and_every_game_still_ends(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", seed=0)
    recipe = parse_recipe(
        {
            "sampling": {"max_new_tokens": 128},
            "generation": {
                "dtype": "float32",
                "max_model_len": 512,
                "max_num_seqs": 64,
                "kv_cache_gib": BLOCKS * BLOCK_BYTES / 2**30,
            },
            "replay": {"fsync_s": 0.01},
        }
    )
    worker = GenerationWorker("attacker", str(tmp_path / "model"), recipe.generation)
    buffer = ReplayBuffer(str(tmp_path / "run"), plan_replay(recipe), SEEDS)
    engines, replay = {"generation-attacker-0": Handle(worker, "stats")}, Handle(buffer, "report_load")
    await worker.start()
    await report_once(engines, replay)
    before = (await buffer.stats()).backpressure
    assert before is not None and before.limit == 64 // 4  # a place for each answer of a game at once
    long = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=300)
    seen: list[BackpressureStats | None] = []

    async def play(k: int) -> None:
        while (await buffer.stats()).games.finished < GAMES:
            for deal in await buffer.deal(f"rollout-{k}", 1, 0.2):
                text = " ".join(f"w{n}-" for n in range(40))
                samples = (2 * deal.game_id, 2 * deal.game_id + 1)
                completions = await worker.generate(Ask("ask", ({"role": "user", "content": text},), samples, long))
                assert all(len(c.token_ids) == len(c.logprobs) > 0 for c in completions)
                await buffer.finish(f"rollout-{k}", [record(deal.game_id)])

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.1)
            await report_once(engines, replay)
            seen.append((await buffer.stats()).backpressure)

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(200.0):
            await asyncio.gather(*(play(k) for k in range(24)))
        await report_once(engines, replay)
        stats = await buffer.stats()
    finally:
        watching.cancel()
        await worker.shutdown()
    pressure = stats.backpressure
    assert stats.games.open == 0 and stats.games.finished >= GAMES
    assert pressure is not None and pressure.preemptions > 0 and pressure.cuts > 0
    looks = [s for s in seen if s is not None]
    assert 1 <= min(s.limit or 16 for s in looks) < 16
    assert max(s.kv_usage for s in looks) > 0.9 and max(s.waiting for s in looks) > 0
    assert (pressure.kv_usage, pressure.waiting) == (0.0, 0), "an idle engine holds nothing"
