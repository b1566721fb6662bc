"""Games/s of four rollout workers and one replay buffer with 256 generation and 64 judge stubs and 4,096 games in flight, against
16 times the figure of one rollout worker with 16, 4 and 256.

The stubs take seconds, as engines do, so the small setting is bound by them; the large one shows what the coordination loses.
"""

import sys
import tempfile
import time
from pathlib import Path

import ray

from tests.benchmarks.harness import Result, write_results
from tests.benchmarks.players import StubRun, begin_ray, wait_for_games
from tests.benchmarks.stubs import StubSpec, recipe_of

FACTOR, ROLLOUT_WORKERS = 16, 4
HOSTS = 2  # processes with stubs: one is an event loop on one core, which 320 stubs fill
SAMPLE_S, VERDICT_S = 6.0, 3.0
WARM_S, MEASURED_S, LIMIT_S = 45.0, 60.0, 300.0


def stub_run(factor: int, workers: int, folder: Path, sample_s: float, verdict_s: float) -> StubRun:
    """`factor` times the small setting, played by so many rollout workers."""
    recipe = recipe_of(
        game={"in_flight": 256 * factor},
        rollout={"workers": workers},
        replay={"max_staleness": 8},
        learners={p: {"batch_games": 64 * factor} for p in ("attacker", "defender")},
    )
    specs = {
        "attacker": StubSpec(8 * factor, 64, sample_s),
        "defender": StubSpec(8 * factor, 128, sample_s),
        "judge": StubSpec(4 * factor, 512, verdict_s),
    }
    return StubRun(recipe, folder, specs, hosts=min(HOSTS, factor))


def rate(factor: int, workers: int) -> float:
    """Games/s in the steady state of that setting."""
    with tempfile.TemporaryDirectory() as folder:
        run = stub_run(factor, workers, Path(folder), SAMPLE_S, VERDICT_S)
        run.start()
        run.learn(1_000_000, 0.0, 0.0)
        time.sleep(WARM_S)
        began, first = time.perf_counter(), run.stats().games.finished
        time.sleep(MEASURED_S)
        ended, last = wait_for_games(run, first + 1, LIMIT_S)
        run.stop()
    return (last - first) / (ended - began)


def measure() -> list[Result]:
    begin_ray()
    small, large = rate(1, 1), rate(FACTOR, ROLLOUT_WORKERS)
    ray.shutdown()
    note = f"small setting: {small:.1f} games/s"
    return [Result("scale", large, FACTOR * small, "games/s", 0.80, True, note)]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
