"""The way of a request into an engine, beside updates: its salt, its first token, its end. vLLM is a fake; see `fake_llm`."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from actors.engine.engine import Engine
from actors.engine.occupancy import StepCounter
from actors.engine.start import StartedLLM
from actors.errors import WorkerBroken
from protocol.types import Ask, Sampling
from tests.unit.actors.engine.fake_llm import FakeLLM, vllm_names

__all__ = ["vllm_names"]
pytestmark = pytest.mark.usefixtures("vllm_names")
ASK = Ask("ask", ({"role": "user", "content": "hello"},), (1, 2), Sampling(1.0, 1.0, 8))


class Keeper:
    def shutdown(self, wait: bool) -> None:
        pass


class Prompts:
    def encode(self, messages: object) -> list[int]:
        return [1, 2, 3]


def engine_on(llm: FakeLLM, max_model_len: int = 100) -> Engine:
    keeper: Any = Keeper()
    prompts: Any = Prompts()
    started, answers = StartedLLM(llm, keeper, 0.0, 0.0), lambda ids, text: text
    return Engine(started, prompts, answers, max_model_len, StepCounter(), updatable=True)  # type: ignore[arg-type]


async def run_update(engine: Engine, version: int) -> None:
    await engine.pause()
    await engine.finish_update(version)
    await engine.resume()


async def test_no_request_is_salted_with_a_version_that_it_is_not_served_by() -> None:
    """Updates without end beside requests that start at every moment of one."""
    llm = FakeLLM()
    await llm.get_supported_tasks()  # as `Engine.build` does
    engine = engine_on(llm)
    asked: list[asyncio.Task[Any]] = []
    for version in range(1, 40):
        update = asyncio.create_task(run_update(engine, version))
        for _ in range(version % 9):
            await asyncio.sleep(0)
        asked.append(asyncio.create_task(engine.generate(ASK)))
        await update
    completions = [c for group in await asyncio.gather(*asked) for c in group]
    assert len(completions) == len(llm.arrivals) == 78
    wrong = [arrival for arrival in llm.arrivals if arrival[0] != arrival[1] or arrival[2]]
    assert not wrong  # (its salt, the version in service, whether EngineCore was paused)


async def test_who_is_woken_by_a_resume_looks_whether_the_gate_is_still_open() -> None:
    llm = FakeLLM()
    await llm.get_supported_tasks()
    engine = engine_on(llm)
    await engine.pause()
    asked = asyncio.create_task(engine.generate(ASK))
    await asyncio.sleep(0.01)
    await engine.finish_update(1)
    await engine.resume()
    pause = asyncio.create_task(engine.pause())  # before the sample runs again
    await pause
    await engine.finish_update(2)
    await engine.resume()
    await asked
    assert [(salt, version) for salt, version, _ in llm.arrivals] in ([("1", "1")] * 2, [("2", "2")] * 2)


async def test_the_first_token_of_any_sample_is_told_once_and_the_completion_is_whole() -> None:
    engine, told = engine_on(FakeLLM()), []
    completions = await engine.generate(ASK, on_first_token=lambda: told.append(engine.running))
    assert told == [2]
    for completion in completions:
        assert (list(completion.token_ids), completion.text) == ([7, 8, 9], "t7 t8 t9 ")
        assert list(completion.logprobs) == [-7.0, -8.0, -9.0]
        assert (completion.first_version, completion.last_version) == (0, 0)
    assert engine.running == 0


@pytest.mark.parametrize(
    ("max_model_len", "wanted", "finish"), [(100, 8, "length"), (10, 8, "no_room"), (11, 8, "length")]
)
async def test_a_sample_that_the_context_cut_short_says_so(max_model_len: int, wanted: int, finish: str) -> None:
    """The prompt has three tokens."""
    llm = FakeLLM()
    completions = await engine_on(llm, max_model_len).generate(replace(ASK, sampling=Sampling(1.0, 1.0, wanted)))
    assert {c.finish for c in completions} == {finish}
    assert {p.max_tokens for p in llm.params} == {min(wanted, max_model_len - 3)}


@pytest.mark.parametrize(("seeded", "seeds"), [(True, [1, 2]), (False, [None, None])])
async def test_a_request_has_a_seed_only_where_sampling_is_seeded(seeded: bool, seeds: list[int | None]) -> None:
    llm = FakeLLM()
    await engine_on(llm).generate(replace(ASK, sampling=Sampling(1.0, 1.0, 8, seeded)))
    assert [p.seed for p in llm.params] == seeds


async def test_it_says_whether_it_is_paused_and_whether_it_is_dead() -> None:
    llm = FakeLLM()
    engine = engine_on(llm)
    await engine.check_health()
    await engine.pause()
    assert engine.paused
    await engine.resume()
    assert not engine.paused
    llm.dead = True
    with pytest.raises(WorkerBroken, match="died"):
        await engine.check_health()
    with pytest.raises(WorkerBroken, match="died"):
        await engine.generate(ASK)


async def test_a_request_that_waits_for_a_resume_ends_with_its_engine() -> None:
    engine = engine_on(FakeLLM())
    await engine.pause()
    asked = asyncio.create_task(engine.generate(ASK))
    await asyncio.sleep(0.01)
    engine.close()
    with pytest.raises(WorkerBroken, match="closed"):
        await asked
    with pytest.raises(WorkerBroken, match="closed"):
        await engine.check_health()
    with pytest.raises(WorkerBroken, match="closed"):
        await engine.generate(ASK)
