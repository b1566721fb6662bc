"""Replay buffers for tests: the real one without an object store, and one that crashes and is opened again."""

import os
from pathlib import Path
from typing import Any

from cluster.plan.replay import plan_replay
from cluster.replay.actor import ReplayBuffer
from protocol.recipe import Recipe, parse_recipe
from tests.unit.cluster.replay.rules.test_facts import SEEDS, record


def recipe(
    staleness: int = 1,
    batch: int = 2,
    learners: dict[str, Any] | None = None,
    judge: dict[str, Any] | None = None,
    game: dict[str, Any] | None = None,
    **replay: Any,
) -> Recipe:
    learner = {"batch_games": batch}
    return parse_recipe(
        {
            "run": {"steps": 10},
            "replay": {"max_staleness": staleness, "fsync_s": 0.01, **replay},
            "learners": {"attacker": learner, "defender": learner, **(learners or {})},
            "judge": judge or {},
            "game": game or {},
        },
    )


class Buffer(ReplayBuffer):
    """The real buffer without an object store: a table is its own reference, and comes unwrapped."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, put=lambda table: table)

    async def lease(self, *args: Any) -> Any:
        answer = await super().lease(*args)
        return answer if answer is None else answer[0]


class Buffers:
    """Opens a buffer, and the next one over the same files after a crash of the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, None
        self.opened: list[Buffer] = []

    def open(self, **settings: Any) -> Buffer:
        if self.opened:  # a killed process: nothing is closed in order, the system drops the lock
            os.close(self.opened[-1]._journal._fd)
        self.opened.append(Buffer(str(self.folder), plan_replay(recipe(**settings)), SEEDS))
        return self.opened[-1]


def games_of(table: Any) -> list[int]:
    return list(table.column("game_id").to_pylist())


async def played(b: ReplayBuffer, n: int, version: int = 0) -> list[int]:
    deals = await b.deal("w", n, 0.0)
    await b.finish("w", [record(d.game_id, version) for d in deals])
    return [d.game_id for d in deals]
