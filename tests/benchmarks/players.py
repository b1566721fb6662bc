"""The coordinating processes of a run around stub engines: replay buffer, rollout workers, judge pools, learners that only wait.

Everything here but the engines, the judges and the learners' arithmetic is the real thing, in the processes that a run has.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from actors.clients import RemoteGenerator
from actors.pool import WorkerPool
from actors.rollout import RolloutWorker
from cluster.plan.placement import rollout_role
from cluster.plan.plan import share_games
from cluster.plan.replay import plan_replay
from cluster.replay.actor import ReplayBuffer
from cluster.replay.client import BatchClient, ReplayClient
from cluster.replay.stats import ReplayStats
from judge.pool import JudgePool
from protocol.recipe import Recipe
from protocol.roles import PLAYERS, Player
from protocol.router_state import RouterStats
from protocol.rules import GameRules
from tests.benchmarks.stubs import StubHandle, StubHost, StubSpec, seeds

MANY = 20_000  # concurrent calls of an actor


class Rollout(RolloutWorker):
    """A rollout worker that asks stubs."""

    def __init__(self, k: int, recipe: Recipe, replay: Any, handles: dict[str, list[StubHandle]]) -> None:
        name = rollout_role(k)
        pools = {
            role: WorkerPool(mine, recipe.router, f"{name}/{role}", (k, recipe.rollout.workers))
            for role, mine in handles.items()
        }
        players = [RemoteGenerator(pools[p], recipe.generation.deadline_s) for p in PLAYERS]
        judge = JudgePool(pools["judge"], recipe.judge.deadline_s, recipe.judge.attempts)
        share = share_games(recipe.game.in_flight, recipe.rollout.workers)[k]
        super().__init__(name, GameRules.of(recipe), share, ReplayClient(replay), players[0], players[1], judge)
        self._pools = pools

    async def routers(self) -> dict[str, RouterStats]:
        """What its routers counted, by whom they ask."""
        return {role: pool.stats() for role, pool in self._pools.items()}


class Replay(ReplayBuffer):
    """The real one, under a name that Ray can make an actor of."""


@dataclass(frozen=True)
class Usage:
    """What a process has used: CPU seconds (its own and the system's for it), and MB of memory that no file backs."""

    cpu_s: float
    anon_mb: float


def usage_of(pid: int) -> Usage:
    times = psutil.Process(pid).cpu_times()
    status = Path(f"/proc/{pid}/status").read_text().split("\n")
    anon_kb = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    return Usage(times.user + times.system, anon_kb / 1024)


class StubRun:
    """A run on a local Ray, from `start` to `stop`. `hosts` spread the stubs over so many processes."""

    def __init__(self, recipe: Recipe, folder: Path, specs: dict[str, StubSpec], hosts: int = 1) -> None:
        self.recipe = recipe
        self._hosts = [
            ray.remote(StubHost).options(num_cpus=0, max_concurrency=MANY, enable_task_events=False).remote(specs)
            for _ in range(hosts)
        ]
        handles = {
            role: [StubHandle(self._hosts[k % hosts], role, k) for k in range(spec.count)]
            for role, spec in specs.items()
        }
        make = {
            "num_cpus": 0,
            "max_concurrency": MANY,
            "enable_task_events": False,
        }  # as `cluster.run.wiring` starts them
        self.replay = ray.remote(Replay).options(**make).remote(str(folder), plan_replay(recipe), seeds())
        self.rollouts = [
            ray.remote(Rollout).options(**make).remote(k, recipe, self.replay, handles)
            for k in range(recipe.rollout.workers)
        ]
        self._learners: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._over = threading.Event()

    def start(self) -> None:
        """Begins to play."""
        self._runs = [rollout.run.remote() for rollout in self.rollouts]

    def learn(self, steps: int, step_s: float, push_s: float) -> None:
        """Begins two learners that take `step_s` a step, and their versions `push_s` to reach the stubs."""
        for player in PLAYERS:
            thread = threading.Thread(target=self._learn, args=(player, steps, step_s, push_s), daemon=True)
            thread.start()
            self._learners.append(thread)

    def join(self, timeout_s: float) -> None:
        """Waits for the learners. Raises what one of them raised, or `TimeoutError`."""
        deadline = time.monotonic() + timeout_s
        for thread in self._learners:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"the learners were not done within {timeout_s:g} s")
        if self._errors:
            raise self._errors[0]

    def stats(self) -> ReplayStats:
        found: ReplayStats = ray.get(self.replay.stats.remote(), timeout=60)
        return found

    def coordinating(self) -> dict[str, int]:
        """Process ids of replay buffer and rollout workers."""
        actors = {"replay": self.replay} | {rollout_role(k): handle for k, handle in enumerate(self.rollouts)}
        return {name: ray.get(handle.__ray_call__.remote(_pid), timeout=60) for name, handle in actors.items()}

    def stop(self) -> None:
        """Ends the learners, the games and the actors."""
        self._over.set()
        self.join(60.0)
        ray.get(self.replay.stop.remote(), timeout=60)
        ray.get([rollout.stop.remote() for rollout in self.rollouts], timeout=120)
        ray.get(self._runs, timeout=60)
        for handle in [*self.rollouts, self.replay, *self._hosts]:
            ray.kill(handle)

    def _learn(self, player: Player, steps: int, step_s: float, push_s: float) -> None:
        source, synchronous = BatchClient(self.replay), self.recipe.replay.max_staleness == 0
        games = self.recipe.learners.of(player).batch_games
        try:
            for step in range(steps):
                while source.lease(player, step, step, games, 1.0) is None:
                    if self._over.is_set():
                        return
                if self._over.is_set():
                    return
                time.sleep(step_s)
                pushed = threading.Timer(push_s, self._push, (player, step + 1))
                pushed.start()
                if synchronous:  # as `learners.loop` does: nobody hears of the step before its version is served
                    pushed.join()
                if (step + 1) % 20 == 0:
                    source.acknowledge(player, step + 1)
            source.finished(player)
        except BaseException as error:  # noqa: BLE001  # raised by `join`
            self._errors.append(error)

    def _push(self, player: Player, version: int) -> None:
        ray.get([host.set_version.remote(player, version) for host in self._hosts], timeout=60)


def _pid(_: Any) -> int:
    import os

    return os.getpid()


def begin_ray(cpus: int = 2) -> None:
    """A private Ray in this process."""
    ray.init(num_cpus=cpus, include_dashboard=False, logging_level="ERROR", log_to_driver=False)


def wait_for_games(run: StubRun, games: int, timeout_s: float) -> tuple[float, int]:
    """Returns the time and the number of finished games as soon as at least `games` are."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        done = run.stats().games.finished
        if done >= games:
            return time.perf_counter(), done
        time.sleep(0.2)
    raise TimeoutError(f"{games} games did not finish within {timeout_s:g} s")


def total(usages: Sequence[Usage]) -> Usage:
    return Usage(sum(u.cpu_s for u in usages), sum(u.anon_mb for u in usages))
