"""The driver's looks: who answers is told of, who does not is left out, and neither ends the run."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import ray

import cluster.supervise.engine_load as looks
from cluster.replay.rules.backpressure import Look
from cluster.supervise.engine_load import looking
from protocol.recipe import BackpressureConfig

FULL = {"kv_usage": 0.5, "waiting": 2.0, "preemptions": 1.0, "tokens": 9.0}


class Handle:
    """An actor handle whose one method answers as told."""

    def __init__(self, method: str, answer: Callable[..., Any]) -> None:
        async def remote(*args: Any) -> Any:
            said = answer(*args)
            return await said if asyncio.iscoroutine(said) else said

        setattr(self, method, type("Method", (), {"remote": staticmethod(remote)}))


def dead(*_: Any) -> None:
    raise ray.exceptions.ActorUnavailableError("gone", None)


async def test_engines_are_looked_at_before_and_while_games_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "ANSWER_S", 0.5)
    told: list[list[Look]] = []
    thrice = asyncio.Event()

    def pressure(seen: list[Look]) -> None:
        told.append(seen)
        if len(told) == 3:
            thrice.set()

    generators: Any = {
        "attacker": [Handle("stats", lambda: FULL), Handle("stats", dead)],
        "defender": [Handle("stats", lambda: {"tokens": 3.0}), Handle("stats", lambda: asyncio.sleep(9.0))],
    }
    async with looking(generators, Handle("pressure", pressure), BackpressureConfig(every_s=0.01)):
        assert told == [[Look("generation-attacker-0", 0.5, 2, 1)]]
        await asyncio.wait_for(thrice.wait(), 60.0)
    after = len(told)
    await asyncio.sleep(0.1)
    assert len(told) == after, "the looks end with the games"


async def test_a_replay_buffer_that_restarts_and_engines_that_are_silent_cost_nothing() -> None:
    rounds = []
    thrice = asyncio.Event()

    def restarting(_: Any) -> None:
        rounds.append(1)
        if len(rounds) == 3:
            thrice.set()
        dead()

    generators: Any = {"attacker": [Handle("stats", lambda: FULL)], "defender": []}
    async with looking(generators, Handle("pressure", restarting), BackpressureConfig(every_s=0.01)):
        await asyncio.wait_for(thrice.wait(), 60.0)
    silent: Any = {"attacker": [Handle("stats", dead)], "defender": []}
    async with looking(silent, Handle("pressure", rounds.clear), BackpressureConfig()):
        assert rounds, "the replay buffer is told nothing where nobody answers"


async def test_without_backpressure_nobody_looks() -> None:
    asked: list[str] = []
    generators: Any = {"attacker": [Handle("stats", lambda: asked.append("stats"))], "defender": []}
    async with looking(generators, Handle("pressure", lambda _: asked.append("pressure")), None):
        await asyncio.sleep(0)
    assert not asked
