"""The replay buffer at real row sizes: durable rows/s, and the worst tick of its event loop at 64 rows a second.

The buffer is the real Ray actor with the recipe's default group commit. This process sends it finished games as rollout workers do,
two learners lease their batches and acknowledge steps, and `stats()` is asked once a second, as the driver does. Rows count when
their call has returned, so after their fsync, and when they were leased.

First as fast as it takes them, then for a minute at a fixed rate, with the steps of the first part still leased: an acknowledgement
of all of them falls into that minute. A tick is what the actor's event loop takes beyond the 10 ms that a coroutine on it asks to
sleep: for so long nobody was answered.
"""

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.plan.replay import plan_replay
from cluster.replay.actor import ReplayBuffer
from cluster.replay.client import BatchClient, ReplayClient
from protocol.roles import PLAYERS, Player
from protocol.types import Item
from tests.benchmarks.disks import SLOW_MS, fsync_ms, slow_environment
from tests.benchmarks.harness import Result, write_results
from tests.benchmarks.players import MANY, begin_ray
from tests.benchmarks.rows import ATTACKS, ROWS, record_of, stock_of
from tests.benchmarks.stubs import recipe_of, seeds
from tests.paths import ROOT

GAMES_S = 100  # of a run on 256 GPUs: 40 to 100 a second
TARGET_ROWS_S = GAMES_S * ROWS  # a game gives 1 + ATTACKS rows: 500 a second
STREAM_ROWS_S, STREAM_S = 64, 75.0
WORST_TICK_S = 1.0
TOKENS = (512, 2_048)  # of an item; a row has four
SENDERS, CALL_GAMES = 8, 16  # rollout workers, and games of a call in the first part
BATCH_GAMES, ACKNOWLEDGE_EVERY = 64, 20
FIRST_STEPS = ACKNOWLEDGE_EVERY - 1  # of the first part; the step after them acknowledges all their rows
TICK_S = 0.01
LIMIT_S = 180.0


class Watched(ReplayBuffer):
    """The real one, with a coroutine that notes how late the event loop is."""

    async def watch(self) -> float:
        """Begins to note; gives the milliseconds of an fsync in this process."""
        self._worst_s, self._watching = 0.0, asyncio.create_task(self._tick())
        return fsync_ms(self._segments["attacker"].path(0).parent)

    async def worst(self) -> float:
        """Seconds of the worst tick since `watch`; ends it."""
        self._watching.cancel()
        return self._worst_s

    async def _tick(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self._worst_s = max(self._worst_s, time.perf_counter() - began - TICK_S)


@dataclass(frozen=True)
class Measured:
    """Of one disk and size."""

    rows_s: float
    worst_tick_s: float
    fsync_ms: float


class Learners:
    """Two threads that lease every step's rows at once."""

    def __init__(self, replay: Any) -> None:
        self._source = BatchClient(replay)
        self._next: dict[Player, int] = dict.fromkeys(PLAYERS, 0)

    async def learn(self, steps: int) -> int:
        """That many steps more; gives how many rows those were."""
        return sum(await asyncio.gather(*(asyncio.to_thread(self._learn, player, steps) for player in PLAYERS)))

    def _learn(self, player: Player, steps: int) -> int:
        rows, last, began = 0, self._next[player] + steps, time.monotonic()
        while self._next[player] < last:
            if time.monotonic() - began > LIMIT_S:
                raise TimeoutError(f"{player}: step {self._next[player]} of {last} had no games within {LIMIT_S:g} s")
            table = self._source.lease(player, self._next[player], 0, BATCH_GAMES, 1.0)
            if table is not None:
                rows += table.num_rows
                self._next[player] += 1
                if self._next[player] % ACKNOWLEDGE_EVERY == 0:
                    self._source.acknowledge(player, self._next[player])
        return rows


async def send(source: ReplayClient, worker: str, stock: list[list[Item]], games: int, games_s: float | None) -> None:
    """Sends so many games, at that rate or as fast as they are taken."""
    began, sent = time.monotonic(), 0
    while sent < games:
        due = games if games_s is None else min(games, int((time.monotonic() - began) * games_s))
        if due == sent:
            await asyncio.sleep(0.02)
            continue
        deals = await source.deal(worker, min(due - sent, CALL_GAMES), 10.0)
        await source.finish(worker, [record_of(deal, items) for deal, items in zip(deals, stock, strict=False)])
        sent += len(deals)


async def ask_stats(replay: Any) -> None:
    """Asks once a second, as the driver does, until it is cancelled."""
    while True:
        await replay.stats.remote()
        await asyncio.sleep(1.0)


async def play(replay: Any, learners: Learners, stock: list[list[Item]], steps: int, games_s: float | None) -> float:
    """Plays and learns the games of so many steps; gives the rows/s."""
    asking = asyncio.create_task(ask_stats(replay))
    games, share = steps * BATCH_GAMES // SENDERS, None if games_s is None else games_s / SENDERS
    began = time.perf_counter()
    sending = [send(ReplayClient(replay), f"rollout-{k}", stock, games, share) for k in range(SENDERS)]
    *_, rows = await asyncio.gather(*sending, learners.learn(steps))
    seconds = time.perf_counter() - began
    asking.cancel()
    if rows != steps * BATCH_GAMES * ROWS:
        raise RuntimeError(f"{rows} rows were leased, {steps * BATCH_GAMES * ROWS} sent")
    return rows / seconds


async def measure_one(replay: Any, tokens: int) -> Measured:
    """First as fast as it goes, then at the fixed rate."""
    stock, learners = stock_of(tokens, CALL_GAMES), Learners(replay)
    await play(replay, learners, stock, 1, None)  # what is imported and mapped on first use
    rows_s = await play(replay, learners, stock, FIRST_STEPS - 1, None)
    took_ms = await replay.watch.remote()
    games_s = STREAM_ROWS_S / ROWS
    await play(replay, learners, stock, round(STREAM_S * games_s / BATCH_GAMES), games_s)
    return Measured(rows_s, await replay.worst.remote(), took_ms)


def run_one(tokens: int, environment: dict[str, str]) -> Measured:
    """Of a fresh buffer whose process has these environment variables."""
    recipe = recipe_of(
        game={"attacks": ATTACKS, "responses": ATTACKS},
        replay={"max_staleness": 8},
        learners={p: {"batch_games": BATCH_GAMES, "loss": "grpo"} for p in PLAYERS},
    )
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:  # beside the runs: a real disk, not a temporary file system
        options = {"num_cpus": 0, "max_concurrency": MANY, "enable_task_events": False}
        if environment:
            options["runtime_env"] = {"env_vars": environment}
        replay = ray.remote(Watched).options(**options).remote(folder, plan_replay(recipe), seeds())
        try:
            return asyncio.run(measure_one(replay, tokens))
        finally:
            ray.kill(replay)


def results_of(measured: Measured, tokens: int, disk: str, key: str) -> list[Result]:
    """The two lines of a disk and size."""
    what = f"{ATTACKS} items of {tokens:,} tokens a row, {disk}, fsync {measured.fsync_ms:.1f} ms"
    arithmetic = f"target: {GAMES_S} games/s of {ROWS} rows"
    ticking = f"at {STREAM_ROWS_S} rows/s for {STREAM_S:.0f} s; {what}"
    return [
        Result(f"replay-rows-{key}", measured.rows_s, None, "rows/s", TARGET_ROWS_S, True, f"{arithmetic}; {what}"),
        Result(f"replay-tick-{key}", measured.worst_tick_s, None, "s", WORST_TICK_S, False, ticking),
    ]


def measure() -> list[Result]:
    """Both disks; without a C compiler the local one alone, which a line on stderr says."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        slow = slow_environment(Path(folder))
        begin_ray()
        for tokens in TOKENS:
            results += results_of(run_one(tokens, {}), tokens, "local disk", f"{tokens}")
            if slow is None:
                print("no C compiler: the file system with slow fsyncs is left out", file=sys.stderr, flush=True)
                continue
            found = run_one(tokens, slow)
            if found.fsync_ms < SLOW_MS:
                raise RuntimeError(
                    f"an fsync took {found.fsync_ms:.2f} ms: the library with slow fsyncs was not loaded"
                )
            disk = f"local disk with {SLOW_MS} ms more in each fsync (LD_PRELOAD)"
            results += results_of(found, tokens, disk, f"{tokens}-{SLOW_MS}ms")
        ray.shutdown()
    return results


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
