"""What ends a run while it is watched: the games, or a learner group."""

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.run.games import Games
from cluster.run.poll import Poll
from cluster.run.pools import RolloutWorkerStats
from cluster.run.states import RunFailed
from cluster.run.watch import check_learners
from judge.stats import PoolStats
from learners.spec import LearnerResult
from tests.unit.cluster.run.test_poll import handle


def futures(n: int) -> list["asyncio.Future[Any]"]:
    return [asyncio.get_running_loop().create_future() for _ in range(n)]


async def test_games_that_end_by_an_error_end_the_run() -> None:
    playing = futures(2)
    games = Games(SimpleNamespace(), playing)  # type: ignore[arg-type]
    games.check()
    playing[1].set_exception(ValueError("remote traceback\n  the source refused"))
    with pytest.raises(RunFailed, match="rollout-1 ended: the source refused"):
        games.check()


async def test_the_judge_pools_last_counts_come_with_the_end_of_the_games() -> None:
    playing = futures(2)
    for k, future in enumerate(playing):
        future.set_result(RolloutWorkerStats(finished=3, pool=PoolStats(verdicts=9 + k)))
    parts, poll = SimpleNamespace(replay=handle(stop=None), rollouts=[handle(stop=None)] * 2), Poll(SimpleNamespace())  # type: ignore[arg-type]
    await Games(parts, playing).stop(poll)  # type: ignore[arg-type]
    assert poll.stats.pool == PoolStats(verdicts=19)


RESULT = LearnerResult("defender", 8, 8, Path("/runs/a/export/defender"), 0, delivered=True)


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (ray.exceptions.RayError("trace\nout of memory"), "the defender's learner group gave up: out of memory"),
        (
            replace(RESULT, delivered=False),
            "the defender's last version did not reach its workers; what is exported is newer",
        ),
        (RESULT, None),
        (None, None),
    ],
)
def test_a_learner_group_that_gave_up_ends_the_run(
    ended: Any, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(ref: Any) -> Any:
        if isinstance(ref, Exception):
            raise ref
        return ref

    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs if ended is not None else [], []))
    monkeypatch.setattr(ray, "get", get)
    parts: Any = SimpleNamespace(learners={"defender": ended})
    if why is None:
        check_learners(parts)
    else:
        with pytest.raises(RunFailed) as failed:
            check_learners(parts)
        assert str(failed.value) == why
