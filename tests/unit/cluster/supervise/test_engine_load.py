"""Reports of the engines' load: who answers is in the report, who does not is left out, and neither ends the run."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import ray

from actors.engine.occupancy import OccupancyStats
from actors.generation import GenerationStats
from cluster.replay.rules.backpressure import EngineLoad
from cluster.supervise import engine_load
from cluster.supervise.engine_load import report_load
from protocol.recipe import BackpressureConfig

FULL = GenerationStats(tokens=9, occupancy=OccupancyStats(kv_usage=0.5, waiting=2, preemptions=1))


class Handle:
    """An actor handle whose one method answers as given."""

    def __init__(self, method: str, answer: Callable[..., Any]) -> None:
        async def remote(*args: Any) -> Any:
            said = answer(*args)
            return await said if asyncio.iscoroutine(said) else said

        setattr(self, method, type("Method", (), {"remote": staticmethod(remote)}))


def dead(*_: Any) -> None:
    raise ray.exceptions.ActorUnavailableError("gone", None)


async def test_load_is_reported_before_and_while_games_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_load, "ANSWER_S", 0.5)
    reports: list[list[EngineLoad]] = []
    thrice = asyncio.Event()

    def take(loads: list[EngineLoad]) -> None:
        reports.append(loads)
        if len(reports) == 3:
            thrice.set()

    generators: Any = {
        "attacker": [Handle("stats", lambda: FULL), Handle("stats", dead)],
        "defender": [Handle("stats", lambda: GenerationStats(tokens=3)), Handle("stats", lambda: asyncio.sleep(9.0))],
    }
    async with report_load(generators, Handle("report_load", take), BackpressureConfig(every_s=0.01)):
        assert reports == [[EngineLoad("generation-attacker-0", 0.5, 2, 1)]]
        await asyncio.wait_for(thrice.wait(), 60.0)
    after = len(reports)
    await asyncio.sleep(0.1)
    assert len(reports) == after, "the reports end with the games"


async def test_a_replay_buffer_that_restarts_and_engines_that_are_silent_cost_nothing() -> None:
    rounds = []
    thrice = asyncio.Event()

    def restarting(_: Any) -> None:
        rounds.append(1)
        if len(rounds) == 3:
            thrice.set()
        dead()

    generators: Any = {"attacker": [Handle("stats", lambda: FULL)], "defender": []}
    async with report_load(generators, Handle("report_load", restarting), BackpressureConfig(every_s=0.01)):
        await asyncio.wait_for(thrice.wait(), 60.0)
    silent: Any = {"attacker": [Handle("stats", dead)], "defender": []}
    async with report_load(silent, Handle("report_load", rounds.clear), BackpressureConfig()):
        assert rounds, "no report where no engine answers"


async def test_without_backpressure_nobody_is_asked() -> None:
    asked: list[str] = []
    generators: Any = {"attacker": [Handle("stats", lambda: asked.append("stats"))], "defender": []}
    async with report_load(generators, Handle("report_load", lambda _: asked.append("pressure")), None):
        await asyncio.sleep(0)
    assert not asked
