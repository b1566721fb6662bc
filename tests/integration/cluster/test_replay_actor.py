"""The replay actor under real Ray, killed with SIGKILL while rows come in and go out: nothing lost, nothing doubled."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from cluster.plan.replay import plan_replay
from cluster.replay.actor import ReplayBuffer
from cluster.replay.client import BatchClient, ReplayClient
from protocol.recipe import Recipe, parse_recipe
from tests.integration.ray_actors import Actors
from tests.unit.cluster.replay.rules.test_facts import SEEDS, record

STEPS, BATCH, STEP_S = 80, 4, 0.05
KILL_AT = (10, 30, 50, 70)  # when the defender's learner has come this far


class Killable(ReplayBuffer):
    """The real buffer, and where to send the signal."""

    async def pid(self) -> int:
        return os.getpid()


def recipe(every: int | None = None) -> Recipe:
    learner = {"batch_games": BATCH}
    return parse_recipe(
        {
            "run": {"steps": STEPS},
            "replay": {"max_staleness": 2, "fsync_s": 0.05},
            "learners": {"attacker": learner, "defender": learner, "alternate_every": every},
        }
    )


def start(actors: Actors, folder: Path, every: int | None = None) -> Any:
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 100}
    return actors.keep(ray.remote(Killable).options(**options).remote(str(folder), plan_replay(recipe(every)), SEEDS))


async def play(client: ReplayClient, versions: dict[str, int], confirmed: set[int], done: asyncio.Event) -> None:
    """A fake rollout worker: games end at once, under the versions of now."""
    while not done.is_set():
        deals = await client.deal("rollout-0", 4, 0.2)
        now = dict(versions)
        records = [record(d.game_id, now["attacker"], defender_version=now["defender"]) for d in deals]
        if records:
            await client.finish("rollout-0", records)
            confirmed.update(d.game_id for d in deals)


def learn(client: BatchClient, player: Any, versions: dict[str, int]) -> list[list[str]]:
    """A fake learner with two ranks: gives the rows of every step."""
    batches = []
    for step in range(STEPS):
        while (table := client.lease(player, step, step, BATCH, 5.0)) is None:
            pass
        other_rank = client.lease(player, step, step, BATCH, 5.0)
        assert other_rank is not None and other_rank.equals(table)
        assert all(step - version <= 2 for version in table.column("version").to_pylist())
        batches.append(table.column("row_id").to_pylist())
        versions[player] = step + 1
        if step % 10 == 9:
            client.acknowledge(player, step + 1)
        time.sleep(STEP_S)
    client.finished(player)
    return batches


async def kill_now_and_then(handle: Any, versions: dict[str, int]) -> list[int]:
    killed: list[int] = []
    for step in KILL_AT:
        while versions["defender"] < step:  # noqa: ASYNC110  # another thread's count
            await asyncio.sleep(0.02)
        pid = await handle.pid.remote()
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
    return killed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("every", [None, 8], ids=["at once", "in turns"])
async def test_a_killed_actor_loses_and_doubles_nothing(actors: Actors, tmp_path: Path, every: int | None) -> None:
    handle = start(actors, tmp_path, every)
    versions, confirmed, done = {"attacker": 0, "defender": 0}, set[int](), asyncio.Event()
    playing = asyncio.create_task(play(ReplayClient(handle), versions, confirmed, done))
    killing = asyncio.create_task(kill_now_and_then(handle, versions))
    attacker, defender = await asyncio.gather(
        *(asyncio.to_thread(learn, BatchClient(handle), p, versions) for p in versions)
    )
    killed = await killing
    done.set()
    await playing
    assert len(set(killed)) == len(KILL_AT)
    stats = await handle.stats.remote()

    for player, batches in (("attacker", attacker), ("defender", defender)):
        rows = stats.rows[player]
        leased = [row_id for batch in batches for row_id in batch]
        assert len(leased) == len(set(leased)) == rows.learned, player
        assert rows.learned + sum(rows.evicted.values()) + rows.held == rows.appended
        on_disk = [
            row_id
            for path in sorted((tmp_path / "replay").glob(f"{player}-*.arrow"))
            for row_id in pa.ipc.open_stream(pa.memory_map(str(path))).read_all().column("row_id").to_pylist()
        ]
        assert max(Counter(on_disk).values()) == 1, "no row lies on disk twice"
        assert {f"{game}/{player}/0" for game in confirmed} <= set(on_disk), "what was confirmed is there"
        assert len(on_disk) == rows.appended
    if every is not None:  # a game counts for the player on turn alone, and a restart does not forget whose turn it was
        games = [{row_id.split("/")[0] for batch in batches for row_id in batch} for batches in (attacker, defender)]
        assert not games[0] & games[1]
        events = [json.loads(line) for line in (tmp_path / "replay" / "journal.jsonl").read_text().splitlines()]
        leases = [(e["p"], e["step"]) for e in events if e["e"] == "lease"]
        assert leases == sorted(leases, key=lambda at: (at[1] // every, at[0], at[1]))
    assert stats.games.finished >= len(confirmed)
    assert stats.staleness.max_learned <= 2
    events = [json.loads(line) for line in (tmp_path / "replay" / "journal.jsonl").read_text().splitlines()]
    finished = Counter(e["id"] for e in events if e["e"] == "finish")
    assert max(finished.values()) == 1 and len(finished) == stats.games.finished


@pytest.mark.timeout(120)
async def test_a_rollout_worker_that_came_back_gets_its_games_again(actors: Actors, tmp_path: Path) -> None:
    handle = start(actors, tmp_path)
    first = await ReplayClient(handle).deal("rollout-0", 3, 5.0)
    again = await ReplayClient(handle).deal("rollout-0", 3, 5.0)  # a new process, the same name
    assert [d.game_id for d in first] == [d.game_id for d in again] == [0, 1, 2]
    assert (await handle.stats.remote()).games.open == 3
