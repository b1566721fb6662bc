"""Games over four generation workers on a real Ray while one restarts and one hangs. The engines are STUBS, see `stub_worker`.

Router, supervision, publisher and rollout worker are the real ones.
"""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.clients import RemoteGenerator
from actors.pool import WorkerPool
from actors.rollout import RolloutWorker
from cluster.publish.actor import WeightPublisher
from cluster.supervise.supervisor import GenerationKeeper, Supervised, Supervisor, supervise
from protocol.recipe import GenerationConfig, PushConfig, Recipe, parse_recipe
from protocol.rules import GameRules
from protocol.types import Deal, Seed
from tests.integration.actors.stub_worker import StubGenerationWorker
from tests.integration.actors.test_rollout import Source, Undecided, until
from tests.integration.ray_actors import Actors

pytestmark = [pytest.mark.timeout(300), pytest.mark.alone]  # it compares tokens a second
IN_FLIGHT, WORKERS = 64, 4
# A worker that hangs is suspect after up to 5 s, and with half of the workers away an answer takes 64 games / 10 a second, 6 s: an
# ask may need 11 s. Twice that is the deadline, and the restart takes longer still.
DEADLINE_S, RESTART_S = 22.0, 30.0
MEASURED_S = 10.0
RECIPE: Recipe = parse_recipe(
    {
        "game": {"prompts": "sandbox", "in_flight": IN_FLIGHT, "faithfulness": False},
        "generation": {"workers": WORKERS, "deadline_s": DEADLINE_S, "start_deadline_s": 60.0, "backpressure": None},
        "router": {"hedge_s": 2.0},
        "health": {"every_s": 0.5, "stuck_s": 3.0, "silent_s": 5.0, "misses": 4, "replace_s": 2.0},
    }
)


class Endless(Source):
    """Deals games for as long as it is asked, and notes how each came back."""

    def __init__(self) -> None:
        super().__init__()
        self.next_id = 0

    async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
        await asyncio.sleep(0.01)
        first, self.next_id = self.next_id, self.next_id + limit
        return [Deal(k, Seed(f"s{k}", f"w{k}-", "harmful")) for k in range(first, self.next_id)]


class Talker:
    """Stands for the attacker: a faithful rewrite, at once."""

    def __init__(self) -> None:
        self.asked = 0

    async def generate(self, ask: Any) -> Any:
        from protocol.types import Completion

        text = "<think>x</think><prompt>y</prompt>"
        return [Completion.of([1], [2], [0.0], text) for _ in ask.seeds]


@pytest.fixture
def team(actors: Actors, tmp_path: Path) -> list[Any]:
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 0, "max_concurrency": 1000}
    make = ray.remote(StubGenerationWorker).options(**options)
    generation: GenerationConfig = RECIPE.generation
    handles = []
    for k in range(WORKERS):
        folder = tmp_path / str(k)
        folder.mkdir()
        handles.append(actors.keep(make.remote("defender", "stub", generation, None, folder=str(folder))))
    return handles


async def tokens_of(handles: list[Any]) -> list[int]:
    return [(await handle.stats.remote()).tokens for handle in handles]


async def rates_of(handles: list[Any], source: Source) -> tuple[float, float]:
    """Tokens/s of workers that answer, all of them together; and games/s of the whole."""
    tokens, games, began = sum(await tokens_of(handles)), len(source.records), time.perf_counter()
    await asyncio.sleep(MEASURED_S)
    made = sum(await tokens_of(handles)) - tokens
    took_s = time.perf_counter() - began
    return made / took_s, (len(source.records) - games) / took_s


async def test_no_game_is_lost_to_a_restarting_and_a_hung_worker_and_the_others_are_as_fast(
    actors: Actors, team: list[Any], tmp_path: Path
) -> None:
    publisher: Any = actors.keep(
        ray.remote(WeightPublisher).options(num_cpus=0, max_concurrency=100).remote(PushConfig(), 60.0)
    )
    await publisher.register.remote("defender", team)
    await asyncio.gather(*(handle.start.remote() for handle in team))
    roles = {f"generation-defender-{k}": handle for k, handle in enumerate(team)}
    keeper = GenerationKeeper(publisher, {role: role.removeprefix("generation-") for role in roles})
    pool = WorkerPool(team, RECIPE.router, "test")
    supervisor = Supervisor(
        {role: Supervised(handle, keeper, 60.0) for role, handle in roles.items()},
        RECIPE.health,
        lambda: dict(zip(roles, pool.stats().missed, strict=False)),
    )
    source = Endless()
    remote = RemoteGenerator(pool, DEADLINE_S)
    rolling = RolloutWorker("rollout-0", GameRules.of(RECIPE), IN_FLIGHT, source, Talker(), remote, Undecided())
    async with supervise(supervisor):
        run = asyncio.create_task(rolling.run())
        await until(lambda: len(source.records) >= IN_FLIGHT)
        sound = team[2:]
        before, games_before = await rates_of(sound, source)

        restarting, hung = team[:2]
        pids = [(await handle.stats.remote()).pid for handle in (restarting, hung)]
        (tmp_path / "0" / "slow").write_text(str(RESTART_S))
        faulty_at = time.monotonic()
        os.kill(pids[0], signal.SIGKILL)
        await hung.hang.remote()
        await asyncio.sleep(RECIPE.router.hedge_s)
        during, games_during = await rates_of(sound, source)

        await until(lambda: supervisor.state("generation-defender-0") in ("ready", "busy"))
        assert time.monotonic() - faulty_at > DEADLINE_S, "it was away for longer than any ask may take"
        await until(lambda: supervisor.state("generation-defender-1") in ("ready", "busy"))
        finished = len(source.records)
        await until(lambda: len(source.records) > finished + IN_FLIGHT)
        new = [(await handle.stats.remote()).pid for handle in (restarting, hung)]
        served = await tokens_of(team)
        lost = dict(source.abandoned)
        await rolling.stop()
        await run

    print(
        {
            "tokens_per_s": (round(before), round(during)),
            "games_per_s": (round(games_before, 2), round(games_during, 2)),
            "router": pool.stats(),
            "replaced": dict(supervisor.replaced),
        }
    )
    assert not lost
    assert all(one != other for one, other in zip(pids, new, strict=True)), "both have new processes"
    assert sum(supervisor.replaced.values()) == 1, "only the hung one was ended by us"
    assert all(n > 0 for n in served), "and both play again"
    assert during >= 0.9 * before
    # Half of the workers play: were games parked at the others, fewer than half of the games would end.
    assert games_during >= 0.8 * games_before * len(sound) / len(team)
