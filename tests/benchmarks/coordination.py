"""CPU milliseconds that a game costs in the rollout worker (with its judge pool) and the replay buffer (with admission).

Stub engines in other processes answer at once; two learners that only wait consume the rows. The note also has what Ray's raylet
and GCS spend beside them. And how much memory both gain over 20,000 games.
"""

import sys
import tempfile
from pathlib import Path

import ray

from tests.benchmarks.harness import Result, write_results
from tests.benchmarks.players import StubRun, begin_ray, total, usage_of, wait_for_games
from tests.benchmarks.processes import cores_by_role, snapshot, spent_between
from tests.benchmarks.stubs import StubSpec, recipe_of

WARM, MEASURED, GROWTH = 1_000, 5_000, 20_000  # games: before measuring, for the CPU figure, for the memory figure
TOKENS = 512  # of a completion
LIMIT_S = 800.0


def measure() -> list[Result]:
    recipe = recipe_of(game={"in_flight": 256})
    spec = {
        "attacker": StubSpec(4, 128, 0.0, TOKENS),
        "defender": StubSpec(4, 128, 0.0, TOKENS),
        "judge": StubSpec(6, 128, 0.0),
    }
    with tempfile.TemporaryDirectory() as folder:
        begin_ray()
        run = StubRun(recipe, Path(folder), spec)
        run.start()
        run.learn(1_000_000, 0.0, 0.0)
        pids = run.coordinating()
        wait_for_games(run, WARM, LIMIT_S)
        ours = {pid: name for name, pid in pids.items()}
        before, began = {name: usage_of(pid) for name, pid in pids.items()}, snapshot(ours)
        first = run.stats().games.finished
        _, done = wait_for_games(run, first + MEASURED, LIMIT_S)
        after = {name: usage_of(pid) for name, pid in pids.items()}
        ended = snapshot(ours)
        rate = (done - first) / (ended.at_s - began.at_s)
        spent = {name: 1e3 * (after[name].cpu_s - before[name].cpu_s) / (done - first) for name in pids}
        _, last = wait_for_games(run, first + GROWTH, LIMIT_S)
        end = [usage_of(pid) for pid in pids.values()]
        run.stop()
        ray.shutdown()
    growth = (total(end).anon_mb - total(list(before.values())).anon_mb) * GROWTH / (last - first)
    shares = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items())
    cores = cores_by_role(spent_between(began, ended))
    ray_ms = ", ".join(f"{name} {1e3 * cores.get(name, 0.0) / rate:.2f}" for name in ("raylet", "gcs_server"))
    note = f"{shares}; beside them {ray_ms}; {rate:.0f} games/s"
    return [
        Result("coordination", sum(spent.values()), None, "CPU ms/game", 5.0, False, note),
        Result("memory", growth, None, "MB", 50.0, False, f"anonymous memory over {GROWTH:,} games, both processes"),
    ]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
