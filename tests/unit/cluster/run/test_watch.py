"""What ends a run while it is watched: the games, or a learner group."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import structlog

from cluster.observe.view import RunStats
from cluster.publish.stats import PlayerPushes, PublisherStats, WorkerState
from cluster.run import watch as watch_module
from cluster.run.games import Games
from cluster.run.node_watch import NodeWatch
from cluster.run.poll import Poll
from cluster.run.pools import RolloutWorkerStats
from cluster.run.states import RunFailed
from cluster.run.supervision import Fitness
from cluster.run.watch import Shown, Watch, check_learners
from judge.stats import PoolStats
from learners.failure import GroupFailed, RankFailure
from learners.spec import LearnerResult
from protocol.errors import UserError
from tests.unit.cluster.plan.plans import parse_plan
from tests.unit.cluster.run.test_poll import handle


def futures(n: int) -> list["asyncio.Future[Any]"]:
    return [asyncio.get_running_loop().create_future() for _ in range(n)]


async def test_games_that_end_by_an_error_end_the_run() -> None:
    playing = futures(2)
    games = Games(SimpleNamespace(), playing)  # type: ignore[arg-type]
    games.check()
    playing[1].set_exception(ValueError("an attack"))
    with pytest.raises(RunFailed, match=r"^rollout-1 ended: ValueError; see logs/rollout-1\.log$"):
        games.check()


async def test_the_judge_pools_last_counts_come_with_the_end_of_the_games() -> None:
    playing = futures(2)
    for k, future in enumerate(playing):
        future.set_result(RolloutWorkerStats(finished=3, pool=PoolStats(verdicts=9 + k)))
    parts, poll = SimpleNamespace(replay=handle(stop=None), rollouts=[handle(stop=None)] * 2), Poll(SimpleNamespace())  # type: ignore[arg-type]
    await Games(parts, playing).stop(poll)  # type: ignore[arg-type]
    assert poll.stats.pool == PoolStats(verdicts=19)


RESULT = LearnerResult("defender", 8, 8, Path("/runs/a/export/defender"), 0, delivered=True)


def raised_remotely() -> Exception:
    """As Ray hands over what a task raised, a row's text in its message."""
    text = (
        "Traceback (most recent call last):\n  File \"/x/batch.py\", line 7, in read\n    row[k]\nKeyError: 'an attack'"
    )
    task = ray.exceptions.RayTaskError("fit", text, KeyError("an attack"), "fit", 1, "10.0.0.7")
    error: Exception = task.as_instanceof_cause()
    return error


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (ray.exceptions.RayError("trace\nan attack"), "the defender's learner group gave up: RayError"),
        (raised_remotely(), "the defender's learner group gave up: KeyError at /x/batch.py:7 read"),
        (
            ray.exceptions.WorkerCrashedError(),
            "the defender's learner group gave up: WorkerCrashedError: The worker died unexpectedly while executing this task. "
            "Check python-core-worker-*.log files for more information.",
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
        with structlog.testing.capture_logs() as logs, pytest.raises(RunFailed) as failed:
            check_learners(parts)
        assert str(failed.value) == why
        assert not any("exc_info" in entry for entry in logs) and "an attack" not in str(logs)


class FailedTask(ray.exceptions.RayError):
    """As Ray raises what a task raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a remote traceback\nof many lines")
        self.cause = cause


@pytest.mark.parametrize(("delivered", "late"), [(True, ()), (False, ("defender",))])
def test_a_worker_that_is_late_at_the_very_end_does_not_fail_a_run_that_took_every_step(
    delivered: bool, late: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(ray, "get", lambda _: replace(RESULT, delivered=delivered))
    parts: Any = SimpleNamespace(learners={"defender": "ref"})
    assert check_learners(parts) == late


def test_a_users_mistake_that_a_learner_group_finds_keeps_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    mistake = UserError("learners.defender.sft.path: d.jsonl line 3 has no prompt; correct it")

    def get(_: Any) -> Any:
        raise ray.exceptions.RayTaskError("fit_group", "Traceback ...", mistake).as_instanceof_cause()

    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    parts: Any = SimpleNamespace(learners={"defender": "ref"})
    with pytest.raises(UserError) as told:
        check_learners(parts)
    assert type(told.value) is UserError and str(told.value) == str(mistake)


def test_a_rank_that_failed_is_one_line_and_its_traceback_is_in_the_drivers_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = RankFailure("learner-defender-1", 1, "10.0.0.7", "OutOfMemoryError: 2 GiB", "Traceback ...\n  in step")

    def get(_: Any) -> Any:
        raise FailedTask(GroupFailed((failed,)))

    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    parts: Any = SimpleNamespace(learners={"defender": "ref"})
    with structlog.testing.capture_logs() as logs, pytest.raises(RunFailed) as told:
        check_learners(parts)
    assert str(told.value) == (
        "the defender's learner group gave up: learner-defender-1 (rank 1) on node 10.0.0.7: OutOfMemoryError: 2 GiB; "
        "see logs/learner-defender-1.log"
    )
    (entry,) = logs
    assert entry["exception"] == failed.traceback
    assert (entry["part"], entry["of_rank"], entry["on_node"]) == ("learner-defender-1", 1, "10.0.0.7")


@pytest.mark.parametrize(
    ("dumped", "said"),
    [
        (Path("/runs/a/stall-20261127T100000Z"), "; stacks and GPU use are in stall-20261127T100000Z/"),
        (OSError("disk full"), "; its stacks could not be had"),
    ],
)
async def test_a_stalls_folder_is_named_and_its_lack_hides_nothing(
    dumped: Path | OSError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dump(*_: Any) -> Path:
        if isinstance(dumped, OSError):
            raise dumped
        return dumped

    monkeypatch.setattr(watch_module, "dump_stall", dump)
    ignored: Any = SimpleNamespace()
    watch = Watch(
        parse_plan({}), ignored, ignored, ignored, ignored, Shown(ignored, ignored, ignored, ignored), ignored
    )
    parts: Any = SimpleNamespace(actors={})
    assert await watch.keep_stall(parts) == said


async def test_held_out_scores_are_taken_while_games_are_played_and_not_while_a_resumed_run_catches_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A resumed run's workers serve the starting weights at first, whatever step its learners say."""
    due: list[tuple[int, dict[str, int]]] = []
    measurements: Any = SimpleNamespace(
        points=(), probe=lambda step: None, measure_if_due=lambda step, versions: due.append((step, versions))
    )
    workers = (WorkerState("defender-0", "healthy", 3, ""),)
    players = {
        "attacker": PlayerPushes(newest=4, step=10),
        "defender": PlayerPushes(newest=4, step=12, workers=workers),
    }
    published = PublisherStats(True, players)  # type: ignore[arg-type]

    async def nothing(*_: Any) -> list[Any]:
        return []

    poll: Any = SimpleNamespace(
        stats=RunStats(publisher=published), ask=nothing, begin_ask_workers=lambda parts: None, note_fitness=print
    )
    shown: list[tuple[int, bool]] = []
    sinks: Any = SimpleNamespace(show=lambda view, reports, samples, last: shown.append((len(samples()), last)))
    ignored: Any = SimpleNamespace(
        write=list,
        check=lambda *_: None,
        conclude=lambda *_: None,
        show=lambda view: None,
        update=lambda *_: None,
        note=lambda *_: None,
        samples=list,
        fitness=Fitness,
        states=dict,
        wait=lambda *_: contextlib.nullcontext(lambda note: None),
    )
    plan = parse_plan({})
    watch = Watch(plan, poll, ignored, ignored, measurements, Shown(ignored, ignored, ignored, sinks), ignored)
    parts: Any = SimpleNamespace(learners={"attacker": "a", "defender": "d"})
    await watch.ask_and_show(parts)
    assert due == []
    monkeypatch.setattr(NodeWatch, "look", lambda _: None)
    monkeypatch.setattr(ray, "wait", lambda refs, num_returns=1, timeout=0.0: ([], []))
    await watch.until_learned(parts, ignored)
    assert due == [(10, {"attacker": 4, "defender": 3})], "the slower player's step, the versions that are served"
    assert shown == [(0, False)] * 2, "each moment is handed to the sinks"
