"""Wall time of the asynchronous game against the same work synchronous, and against the slowest stage alone.

Timed stubs take the place of engines, judges and the learners' arithmetic, in the paper's proportions: one engine for each player,
six judges of a much larger model, which are the slowest stage, and two learners at once. Replay buffer, admission, rollout worker
and judge pool are the real ones, in processes of their own. A sample or verdict takes as long as its seed says, so both runs do the
same work, game for game.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from actors.pool import WorkerPool
from judge.pool import JudgePool
from protocol.recipe import RouterConfig
from protocol.types import JudgeRequest
from tests.benchmarks.harness import Result, write_results
from tests.benchmarks.players import MANY, StubRun, begin_ray
from tests.benchmarks.stubs import StubHandle, StubHost, StubSpec, recipe_of

UNIT_S = 0.4
STEPS, GAMES = 32, 64
VERDICTS = (
    8  # of a game: two attacks' faithfulness, two groups of two responses in both orders, one group of attacks in both
)
# A step asks 128 attacks, 256 responses and 512 verdicts: 1, 2 and 4 units of the engines that answer them.
SPECS = {
    "attacker": StubSpec(1, 128, 1.0 * UNIT_S),
    "defender": StubSpec(1, 128, 1.0 * UNIT_S),
    "judge": StubSpec(6, 32, 1.5 * UNIT_S),
}
STEP_S, PUSH_S = 2.0 * UNIT_S, 0.2 * UNIT_S
# Enough to keep the judges busy; more would only queue before them and age. What goes stale is played again, at the latest when the
# learners wait for the last batch: with the default bound of 4 and 512 in flight a sixth of the attacker's games did, 15 s of 70.
IN_FLIGHT, STALENESS = 160, 8
LIMIT_S = 600.0


def play(synchronous: bool) -> tuple[float, int]:
    """Seconds from the first deal to the last learner step, and the highest staleness learned."""
    recipe = recipe_of(
        synchronous=synchronous,
        run={"steps": STEPS},
        replay={} if synchronous else {"max_staleness": STALENESS},
        game={"in_flight": IN_FLIGHT},
        learners={p: {"batch_games": GAMES} for p in ("attacker", "defender")},
    )
    with tempfile.TemporaryDirectory() as folder:
        run = StubRun(recipe, Path(folder), SPECS)
        run.coordinating()  # all processes are up
        began = time.perf_counter()
        run.start()
        run.learn(STEPS, STEP_S, PUSH_S)
        run.join(LIMIT_S)
        seconds = time.perf_counter() - began
        staleness = run.stats().staleness.max_learned or 0
        run.stop()
    return seconds, staleness


async def _judge_all(pool: JudgePool) -> None:
    """All verdicts of the run, with as many questions at once as the asynchronous run may have."""
    places = asyncio.Semaphore(512)

    async def ask(k: int) -> None:
        async with places:
            await pool.judge([JudgeRequest("compliance", "benign", "q", ("a", "b"), VERDICTS * k + j) for j in (0, 1)])

    await asyncio.gather(*(ask(k) for k in range(STEPS * GAMES * VERDICTS // 2)))


def slowest_alone() -> float:
    """Seconds that the judges take for the run's verdicts when nothing keeps them waiting."""
    host = ray.remote(StubHost).options(num_cpus=0, max_concurrency=MANY).remote(SPECS)
    handles: list[Any] = [StubHandle(host, "judge", k) for k in range(SPECS["judge"].count)]
    ray.get(host.busy.remote(), timeout=60)
    began = time.perf_counter()
    asyncio.run(_judge_all(JudgePool(WorkerPool(handles, RouterConfig(), "overlap"), LIMIT_S, 1)))
    seconds = time.perf_counter() - began
    ray.kill(host)
    return seconds


def measure() -> list[Result]:
    begin_ray()
    slowest = slowest_alone()
    ours, staleness = play(synchronous=False)
    other, _ = play(synchronous=True)
    ray.shutdown()
    note = f"{STEPS} steps of {GAMES} games"
    return [
        Result("overlap", ours, other, "s", 0.55, False, f"{note}, staleness <= {staleness}; against synchronous"),
        Result("overlap-ideal", ours, slowest, "s", 1.10, False, f"{note}; against the judges alone"),
    ]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
