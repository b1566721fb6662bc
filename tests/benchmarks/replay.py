"""Rows/s appended and sampled: our replay buffer, durable, against TorchRL's and Reverb's in memory.

Every side starts from the same rows as a game leaves them (arrays of token ids and log-probabilities, and text), stores them
and hands each out once, in batches of 64. Ours also admits the games, writes Arrow segments, waits for the fsync before an append
counts, and journals every lease. The peers run in an environment of their own (`requirements/peers.sh`), as their documentation has
it: TorchRL extends by a batch, Reverb's client inserts while another one samples.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Result, write_results
from tests.benchmarks.peers.rows import row_of
from tests.benchmarks.stubs import recipe_of, seeds
from tests.paths import ROOT

PEERS = ROOT / ".venv-peers"
BATCH, CALLERS = 64, 8  # games of a step and of an append; rollout workers that append at once
SIZES = {"1 KB": (40, 20_000), "16 KB": (640, 6_000)}  # tokens of each of a row's two items, rows
LIMIT_S = 300.0


def records_of(tokens: int, games: int) -> list[Any]:
    """Finished games with a row for each player, both with a clear preference."""
    from protocol.types import Completion, GameRecord, Group, Item, Preference

    made = []
    for k, seed in zip(range(games), seeds(games), strict=True):
        groups = []
        for player in ("attacker", "defender"):
            row = row_of(2 * k + (player == "defender"), tokens)
            items = tuple(
                Item(Completion.of(row["prompt"], ids, logprobs, text), "ok", reward, text)
                for ids, logprobs, text, reward in zip(
                    row["ids"], row["logprobs"], row["texts"], (8.0, 2.0), strict=True
                )
            )
            preference = Preference(0, 1, (8.0, 2.0), (8.0, 2.0), 0, True)
            groups.append(Group(k, player, 0, seed.id, seed.category, items, (preference,), (), 0))
        made.append(GameRecord(k, seed, tuple(groups), ("ok",), ("ok", "ok"), 0, 0, 0, 0))
    return made


async def _append(buffer: Any, records: list[Any], places: "asyncio.Queue[int]") -> None:
    while not places.empty():
        start = places.get_nowait()
        chunk = records[start : start + BATCH]
        dealt = 0
        while dealt < len(chunk):
            dealt += len(await buffer.deal("rollout", len(chunk) - dealt, 10.0))
        await buffer.finish("rollout", chunk)


async def _learn(buffer: Any, player: str, steps: int) -> int:
    rows = 0
    for step in range(steps):
        lease = None
        while lease is None:
            lease = await buffer.lease(player, step, 0, BATCH, 10.0)
        rows += _table_of(lease).num_rows
        if step % 20 == 19:
            await buffer.acknowledge(player, step + 1)
    await buffer.acknowledge(player, steps)
    return rows


def _table_of(lease: Any) -> Any:
    return lease[0] if isinstance(lease, list) else lease


async def _ours(folder: Path, records: list[Any]) -> float:
    from cluster.plan.replay import plan_replay
    from cluster.replay.actor import ReplayBuffer

    recipe = recipe_of(
        replay={"max_staleness": 2 * CALLERS, "fsync_s": 0.02},
        learners={p: {"batch_games": BATCH} for p in ("attacker", "defender")},
    )
    buffer = ReplayBuffer(str(folder), plan_replay(recipe), seeds(len(records)), put=lambda table: table)
    places: asyncio.Queue[int] = asyncio.Queue()
    for start in range(0, len(records), BATCH):
        places.put_nowait(start)
    began = time.perf_counter()
    callers = [_append(buffer, records, places) for _ in range(CALLERS)]
    steps = len(records) // BATCH
    *_, attacker, defender = await asyncio.gather(
        *callers, _learn(buffer, "attacker", steps), _learn(buffer, "defender", steps)
    )
    seconds = time.perf_counter() - began
    assert attacker == defender == len(records)
    return seconds


def ours(tokens: int, rows: int) -> float:
    """Rows/s."""
    records = records_of(tokens, rows // 2 // BATCH * BATCH)
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:  # beside the runs: a real disk, not a temporary file system
        asyncio.run(_ours(Path(folder) / "warm", records[:BATCH]))  # as TorchRL's script: what is imported on first use
        return 2 * len(records) / asyncio.run(_ours(Path(folder) / "run", records))


def peer(name: str, tokens: int, rows: int) -> float:
    """Rows/s of a peer, in its own environment."""
    python = {"torchrl": sys.executable, "reverb": str(PEERS / "bin" / "python")}[name]
    script = Path(__file__).parent / "peers" / f"{name}_rows.py"
    path = {"PYTHONPATH": str(PEERS / "torchrl")} if name == "torchrl" else {}
    done = subprocess.run(
        [python, str(script), str(tokens), str(rows), str(BATCH)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), **path},
    )
    if done.returncode:
        raise RuntimeError(f"{name}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    rate: float = json.loads(done.stdout.splitlines()[-1])["rows_s"]
    return rate


def measure() -> list[Result]:
    if not PEERS.is_dir():
        raise RuntimeError(f"{PEERS}: the peers are not installed; run requirements/peers.sh")
    results = []
    for size, (tokens, rows) in SIZES.items():
        rate = ours(tokens, rows)
        for name, title in (("torchrl", "TorchRL"), ("reverb", "Reverb")):
            note = f"{size} rows; against {title}, in memory"
            key = f"replay-{name}-{size.replace(' ', '')}"
            results.append(Result(key, rate, peer(name, tokens, rows), "rows/s", 2.0, True, note))
    return results


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
