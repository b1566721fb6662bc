"""Games played by a RolloutWorker on a Ray generation worker, which is killed while they are."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from actors.clients import RemoteGenerator
from actors.generation import GenerationWorker
from actors.rollout import RolloutStats, RolloutWorker
from protocol.recipe import GameConfig, GenerationConfig, Recipe, SamplingConfig
from protocol.rules import GameRules
from protocol.types import Deal, GameRecord, JudgeRequest, Seed, Verdict
from tests.integration.ray_actors import Actors
from tests.integration.supervision import pool_of, supervised
from tests.integration.tiny_qwen import pack_model, save_tiny, tiny_model

pytestmark = pytest.mark.timeout(420)
GAMES = 24
RECIPE = Recipe(
    game=GameConfig(prompts="sandbox", in_flight=8),
    sampling=SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=200, seeded=True),
    generation=GenerationConfig(dtype="float32", max_model_len=2048, kv_cache_gib=0.25, deadline_s=600.0),
)


class Published:
    """Version 5 is out, so that a worker that comes back must come back with it."""

    async def newest(self, player: str) -> Any:
        return pack_model(tiny_model(1), 5)

    async def chosen(self, player: str) -> int:
        return 5

    async def confirm(self, player: str, version: int, layout: str, digest: str) -> bool:
        return True


class Source:
    """Deals `GAMES` games once and notes how each came back."""

    def __init__(self) -> None:
        self.waiting = [Deal(k, Seed(f"s{k}", f"w{k}- w{k + 1}-", "harmful")) for k in range(GAMES)]
        self.records: list[GameRecord] = []
        self.abandoned: dict[int, str] = {}

    async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
        if not self.waiting:
            await asyncio.sleep(wait_s)
        dealt, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return dealt

    async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
        self.records.extend(records)

    async def abandon(self, worker: str, game_id: int, reason: str) -> None:
        self.abandoned[game_id] = reason


class Undecided:
    """A judge that finds everything faithful and equal."""

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        def verdict(r: JudgeRequest) -> Verdict:
            if r.criterion == "faithfulness":
                return Verdict("undecided", "v1", faithful=True)
            return Verdict("undecided", "v1", scores=tuple(5.0 for _ in r.responses))

        return [verdict(r) for r in requests]


@pytest.fixture
def worker(actors: Actors, tmp_path: Path) -> Any:
    save_tiny(tmp_path, seed=0)
    options = {"num_cpus": 0.5, "max_restarts": -1, "max_task_retries": 0, "max_concurrency": 1000}
    actor = ray.remote(GenerationWorker).options(**options)
    return actors.keep(actor.remote("attacker", str(tmp_path), RECIPE.generation, Published()))


@pytest.mark.timeout(1500)
async def test_games_outlive_the_worker_that_they_were_asking(worker: Any) -> None:
    assert await worker.start.remote() == 5
    pid = (await worker.stats.remote()).pid
    engine = psutil.Process(pid).children(recursive=True)
    assert engine
    source, remote = Source(), RemoteGenerator(pool_of([worker]), RECIPE.generation.deadline_s)
    rolling = RolloutWorker(
        "rollout-0", GameRules.of(RECIPE), RECIPE.game.in_flight, source, remote, remote, Undecided()
    )
    run = asyncio.create_task(rolling.run())
    await until(lambda: len(source.records) >= 2)
    assert not source.abandoned and len(source.records) < GAMES
    os.kill(pid, signal.SIGKILL)
    _, alive = await asyncio.to_thread(psutil.wait_procs, engine, 120)
    assert not alive

    async with supervised([worker]):
        await until(lambda: len(source.records) + len(source.abandoned) == GAMES)
    await rolling.stop()
    stats = await run
    assert stats == RolloutStats(playing=0, finished=GAMES, abandoned={})
    assert sorted(r.game_id for r in source.records) == list(range(GAMES))
    assert all(len(r.attack_states) == RECIPE.game.attacks for r in source.records)
    versions = {item.completion.first_version for r in source.records for g in r.groups for item in g.items}
    assert versions == {5}
    assert (await worker.stats.remote()).pid != pid
    await worker.shutdown.remote()


async def until(done: Any) -> None:
    async with asyncio.timeout(500):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
