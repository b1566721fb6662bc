"""`kill -9` of the replay actor in the middle of appends, 20 times: no acknowledged row lost, none twice.

A killed process leaves what it wrote to the page cache, so a missing fsync would not show. Every second round of kills is therefore
a power cut: before the actor's successor looks at its files, they are cut back to what an fsync had covered, and names that no
fsync of their folder had covered are removed. ADVGAME_KILLS=6 is the first round alone.
"""

import asyncio
import json
import os
import random
import signal
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import ray

from cluster.plan.replay import ReplayPlan, plan_replay
from cluster.replay.actor import ReplayBuffer
from cluster.replay.client import ReplayClient
from cluster.replay.store import segments
from protocol.recipe import Recipe, parse_recipe
from protocol.roles import PLAYERS
from protocol.types import Completion, GameRecord
from tests.unit.cluster.replay.buffers import Buffer
from tests.unit.cluster.replay.rules.test_facts import SEEDS, record

KILLS = int(os.environ.get("ADVGAME_KILLS", "20"))
# Where it dies: at any time, from outside | half a batch is written | rows are written and no game noted | nothing is synced |
# rows are synced and the journal is not | everything is synced and nothing confirmed.
POINTS = (None, "batch", "rows", "before", "commit", "answer")
APPENDERS, BATCH = 6, 16


class Disk:
    """What a power cut would leave of a folder: kept up to date in `note` by every fsync that this process makes."""

    def __init__(self, folder: Path, note: Path) -> None:
        self.folder, self.note = folder, note
        self.sizes: dict[str, int] = {}  # by inode
        self.names: dict[str, int] = {}
        self.fsync, self.lock = os.fsync, threading.Lock()
        if note.exists():
            self.sizes, self.names = json.loads(note.read_text())
        os.fsync = self.sync

    def cut(self) -> None:
        for path in self.folder.iterdir():
            inode, size = path.stat().st_ino, path.stat().st_size
            if self.names.get(path.name) != inode:
                path.unlink()
            else:
                os.truncate(path, min(size, self.sizes.get(str(inode), 0)))

    def sync(self, fd: int) -> None:
        before = os.fstat(fd)
        names = {p.name: p.stat().st_ino for p in self.folder.iterdir()} if stat.S_ISDIR(before.st_mode) else {}
        self.fsync(fd)
        if not stat.S_ISDIR(before.st_mode):
            self.sizes[str(before.st_ino)] = before.st_size
        elif before.st_ino == self.folder.stat().st_ino:
            self.names = names
        with self.lock:
            unfinished = self.note.with_suffix(".tmp")
            unfinished.write_text(json.dumps([self.sizes, self.names]))
            unfinished.replace(self.note)


class Mortal(ReplayBuffer):
    """The real buffer, and where it dies."""

    def __init__(self, run_dir: str, plan: ReplayPlan, seeds: Any) -> None:
        self.point: str | None = None
        self.started = time.time()
        run = Path(run_dir)
        (run / "replay").mkdir(exist_ok=True)
        disk = Disk(run / "replay", run / "disk.json")
        if (run / "cut").exists():
            disk.cut()
            (run / "cut").unlink()
        write, die = segments._write_all, self._die_at

        def writing(fd: int, data: Any, offset: int) -> None:
            if bytes(data[:4]) == b"\xff" * 4 and len(data) == 8:
                die("batch")
            write(fd, data, offset)

        segments._write_all = writing
        super().__init__(run_dir, plan, seeds)
        self.recovered = {g for g in range(self._dealer.started) if self._dealer.is_final(g)}

    async def found(self) -> tuple[float, set[int]]:
        """When it started, and the finished games that it knew then."""
        return self.started, self.recovered

    async def pid(self) -> int:
        return os.getpid()

    async def die_at(self, point: str) -> None:
        self.point = point

    def _die_at(self, point: str) -> None:
        if self.point == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def _store(self, player: Any, records: Any) -> None:
        super()._store(player, records)
        self._die_at("rows")

    def _sync(self) -> None:
        if self.point in ("before", "commit"):
            time.sleep(0.2)  # time for an answer that does not wait for this
        self._die_at("before")
        if self.point == "commit":
            for own in self._segments.values():
                own.sync()
            self._die_at("commit")
        super()._sync()
        self._die_at("answer")


def recipe() -> Recipe:
    learner = {"batch_games": BATCH}
    return parse_recipe(
        {
            "replay": {"max_staleness": 10_000, "fsync_s": 0.02, "capacity_rows": 10**6},
            "learners": {"attacker": learner, "defender": learner},
        }
    )


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    yield
    ray.shutdown()


def played(game_id: int) -> GameRecord:
    """A game whose rows have between 4 and 40 KB, so that an append takes a while."""
    tokens = range(random.Random(game_id).randint(200, 2000))
    short = record(game_id)
    groups = []
    for group in short.groups:
        items = [
            replace(item, completion=Completion.of((1, 2), tokens, (-0.5,) * len(tokens), item.completion.text))
            for item in group.items
        ]
        groups.append(replace(group, items=tuple(items)))
    return replace(short, groups=tuple(groups))


async def append(name: str, handle: Any, stored: set[str], done: asyncio.Event) -> None:
    """Plays games at once, and notes the rows that are confirmed as stored. Sometimes it sends a game a second time."""
    client, rng, last = ReplayClient(handle), random.Random(name), list[GameRecord]()
    while not done.is_set():
        records = [played(deal.game_id) for deal in await client.deal(name, rng.randint(1, 8), 0.5)]
        if rng.random() < 0.2:
            records += last
        await client.finish(name, records)
        stored.update(group.row_id for r in records for group in r.groups)
        last = records


def stored_at_death(pid: int, stored: set[str]) -> tuple[float, set[int]]:
    """Waits for the end of a process: when that was seen, and which games had been acknowledged by then."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                break
        except psutil.NoSuchProcess:
            break
        assert time.monotonic() < deadline, "it does not die"
        time.sleep(0.005)
    rows = set(stored)
    return time.time(), {int(row.split("/")[0]) for row in rows}


async def kill(handle: Any, folder: Path, point: str | None, cut: bool, stored: set[str]) -> bool:
    """Has the actor die at a point. Its successor must know every game whose rows had been confirmed as stored.

    A game that was lost is dealt again and so is there in the end all the same; so what the successor found is checked at once.

    Returns:
        Whether one could: not if the successor was up before this process saw the death, and may have answered already.
    """
    pid = await handle.pid.remote()
    await asyncio.sleep(random.Random(pid).uniform(0.2, 1.0))
    death = asyncio.create_task(asyncio.to_thread(stored_at_death, pid, stored))
    if cut:
        (folder / "cut").touch()
    if point is None:
        os.kill(pid, signal.SIGKILL)
    else:
        handle.die_at.options(max_task_retries=0).remote(point)  # it may die before it can answer
    seen, games = await death
    started, found = await asyncio.wait_for(asyncio.wrap_future(handle.found.remote().future()), 60)
    if seen >= started:
        return False
    assert games <= found, f"{len(games - found)} acknowledged games were lost at {point}, {cut=}"
    return True


def on_disk(folder: Path, player: str) -> list[str]:
    paths = sorted((folder / "replay").glob(f"{player}-*.arrow"))
    return [row for p in paths for row in pa.ipc.open_stream(pa.memory_map(str(p))).read_all()["row_id"].to_pylist()]


@pytest.mark.timeout(900)
async def test_no_acknowledged_row_is_lost_and_none_is_there_twice(tmp_path: Path) -> None:
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 100}
    handle = ray.remote(Mortal).options(**options).remote(str(tmp_path), plan_replay(recipe()), SEEDS)
    stored, done, checked = set[str](), asyncio.Event(), 0
    async with asyncio.TaskGroup() as group:
        for k in range(APPENDERS):
            group.create_task(append(f"rollout-{k}", handle, stored, done))
        for k in range(KILLS):
            before = await handle.stats.remote()
            point, cut, confirmed = POINTS[k % len(POINTS)], bool(k // len(POINTS) % 2), len(stored)
            checked += await kill(handle, tmp_path, point, cut, stored)
            after = await handle.stats.remote()
            lost = {p: after.rows[p].lost - before.rows[p].lost for p in PLAYERS}
            if point == "batch" and not cut:
                assert sorted(lost.values())[0] == 0 < sorted(lost.values())[1], (
                    "one batch was cut off, and its rows counted"
                )
            elif not cut and point is not None:
                assert not any(lost.values()), point
            assert not any(after.rows[p].lost_at_least for p in PLAYERS) or cut
            while len(stored) == confirmed:  # noqa: ASYNC110  # it goes on before it dies again
                await asyncio.sleep(0.05)
        done.set()
    assert checked > KILLS / 2
    stats = await handle.stats.remote()
    ray.kill(handle)

    events = [json.loads(line) for line in (tmp_path / "replay" / "journal.jsonl").read_text().splitlines()]
    finished = Counter(e["id"] for e in events if e["e"] == "finish")
    # A power cut may leave a game's note without its rows: it is played and noted again.
    noted_too_early = {game for e in events if e["e"] == "lost" for game in e["games"]}
    assert {game for game, notes in finished.items() if notes > 1} <= noted_too_early
    assert len(finished) == stats.games.finished
    again = Buffer(str(tmp_path), plan_replay(recipe()), SEEDS)
    recovered = await again.stats()
    for player in PLAYERS:
        rows = Counter(on_disk(tmp_path, player))
        acknowledged = {row for row in stored if row.split("/")[1] == player}
        assert max(rows.values()) == 1, "no row lies on disk twice"
        assert acknowledged <= set(rows), "what was acknowledged is there"
        of_finished = {row for row in rows if int(row.split("/")[0]) in finished}
        counts = recovered.rows[player]
        assert counts.appended == counts.held == len(of_finished) >= len(acknowledged)
        assert counts.lost == sum(e["rows"] for e in events if e["e"] == "lost" and e["p"] == player)
        for key in ("appended", "held", "lost", "learned", "evicted"):
            assert getattr(counts, key) == getattr(stats.rows[player], key), key
        learned: Counter[str] = Counter()
        for step in range(recovered.held_games[player] // BATCH):
            learned.update((await again.lease(player, step, 0, BATCH, 1.0)).column("row_id").to_pylist())
        assert max(learned.values()) == 1 and set(learned) <= of_finished
    cut_off = {p: recovered.rows[p].lost for p in PLAYERS}
    print(f"{KILLS} kills, {checked} checked at once; {len(stored)} rows acknowledged, {cut_off} cut off")
