"""Games/s of the coordination alone: the large setting of `scale` with stubs that answer at once, and which process limits it.

The first line is what this machine plays with every process on it, stubs and Ray's own included: it grows with the machine, so it
has no target. The second is what the busiest of the coordinating processes would carry with a core of its own, by the CPU that it
spent on a game: a process is one event loop, so no machine takes it further.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import ray

from tests.benchmarks.harness import Result, write_results
from tests.benchmarks.players import begin_ray, wait_for_games
from tests.benchmarks.processes import cores_by_role, limit_of, snapshot, spent_between
from tests.benchmarks.scale import FACTOR, ROLLOUT_WORKERS, stub_run

GAMES_S = 100.0  # of a run on 256 GPUs: 40 to 100 a second
WARM_S, MEASURED_S, LIMIT_S = 30.0, 60.0, 300.0


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        begin_ray()
        run = stub_run(FACTOR, ROLLOUT_WORKERS, Path(folder), sample_s=0.0, verdict_s=0.0)
        run.start()
        run.learn(1_000_000, 0.0, 0.0)
        ours = {pid: name for name, pid in run.coordinating().items()}
        time.sleep(WARM_S)
        before, first = snapshot(ours), run.stats().games.finished
        time.sleep(MEASURED_S)
        _, last = wait_for_games(run, first + 1, LIMIT_S)
        after = snapshot(ours)
        run.stop()
        ray.shutdown()
    games_s = (last - first) / (after.at_s - before.at_s)
    spent = spent_between(before, after)
    busiest = next(one for one in spent if one.role in ours.values())
    shares = ", ".join(f"{role} {cores:.2f}" for role, cores in cores_by_role(spent).items() if cores >= 0.01)
    cost_ms = 1e3 * busiest.cores / games_s
    return [
        Result(
            "ceiling",
            games_s,
            None,
            "games/s",
            None,
            True,
            f"limited by {limit_of(spent, os.cpu_count() or 1)}; cores: {shares}",
        ),
        Result(
            "ceiling-process",
            1e3 / cost_ms,
            None,
            "games/s",
            GAMES_S,
            True,
            f"{busiest.role} spends {cost_ms:.2f} CPU ms a game, so many games fill its core",
        ),
    ]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
