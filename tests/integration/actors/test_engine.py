"""One engine on the real vLLM: what goes on while it starts, what it tells of a request, and what it says of itself."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from actors.engine.engine import Engine
from actors.errors import WorkerBroken
from cluster.inputs.engine_options import read_options
from protocol.recipe import GenerationConfig
from protocol.types import Ask, Completion, Sampling
from tests.integration.tiny_qwen import save_tiny
from tests.numerics import threads

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
CONFIG = GenerationConfig(dtype="float32", max_model_len=1024, kv_cache_gib=0.25, max_num_seqs=64, threads=threads())
TICK_S = 0.05
# An event loop that waits for EngineCore stands still for all of its start, ten seconds at least. The imports of a start hold the
# interpreter for a second or two at a time, on cores that others use.
LONGEST_SILENCE_S = 5.0


@dataclass
class Ticker:
    """A coroutine beside the start, and how long it was kept from running."""

    ticks: int = 0
    longest_s: float = 0.0

    async def run(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self.longest_s, self.ticks, last = max(self.longest_s, now - last), self.ticks + 1, now


@dataclass
class Built:
    engine: Engine
    ticker: Ticker
    build_s: float


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("engine")
    save_tiny(made, seed=0)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def built(folder: Path) -> AsyncIterator[Built]:
    ticker, began = Ticker(), time.monotonic()
    ticking = asyncio.create_task(ticker.run())
    engine = await Engine.build(str(folder), CONFIG)
    ticking.cancel()
    yield Built(engine, ticker, time.monotonic() - began)
    engine.close()


def ask(*seeds: int, new_tokens: int = 200) -> Ask:
    return Ask("ask", ({"role": "user", "content": "w1- w2- w3-"},), seeds, Sampling(1.0, 1.0, new_tokens, seeded=True))


async def test_the_event_loop_goes_on_while_the_engine_starts(built: Built) -> None:
    assert built.build_s > LONGEST_SILENCE_S > built.ticker.longest_s
    assert built.ticker.ticks > 2 * built.build_s  # and not only at the start and the end


async def test_the_first_token_is_told_once_and_changes_nothing_of_what_is_sampled(built: Built) -> None:
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    engine = built.engine
    told: list[int] = []
    await engine.generate(ask(*range(6)), on_first_token=lambda: told.append(engine.running))
    assert told == [6]  # all were still sampling
    for seed in range(6):  # one at a time: the sums of a batch depend on who is in it
        (found,) = await engine.generate(ask(seed), on_first_token=lambda: None)
        params = SamplingParams(max_tokens=200, seed=seed, logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY)
        prompt = tokens_input(list(found.prompt_ids), cache_salt="0")
        async for final in engine._llm.generate(prompt, params, f"final-{seed}"):
            assert final.finished
        (whole,) = final.outputs
        assert found == Completion.of(
            found.prompt_ids,
            whole.token_ids,
            [at[token].logprob for token, at in zip(whole.token_ids, whole.logprobs, strict=True)],
            whole.text,
            whole.finish_reason,
            int(whole.weight_versions[0].version),
            int(whole.weight_versions[-1].version),
        )


async def test_a_sample_of_one_token_is_whole(built: Built) -> None:
    told: list[bool] = []
    (one,) = await built.engine.generate(ask(1, new_tokens=1), on_first_token=lambda: told.append(True))
    assert told == [True] and len(one.token_ids) == 1


async def test_steps_are_counted_while_it_samples_and_stand_still_in_a_pause(built: Built) -> None:
    engine = built.engine
    assert (engine.running, engine.paused) == (0, False)
    started, before = asyncio.Event(), engine.steps
    running = asyncio.create_task(engine.generate(ask(1, 2, 3, new_tokens=900), on_first_token=started.set))
    await started.wait()
    assert engine.running == 3 and engine.steps > before
    await engine.pause()
    assert engine.paused
    held = asyncio.create_task(engine.generate(ask(4, new_tokens=4)))
    await asyncio.sleep(0.2)
    paused_at = engine.steps
    await asyncio.sleep(0.5)
    assert engine.steps == paused_at and engine.running == 4 and not held.done()
    await engine.resume()
    longest = max(len(completion.token_ids) for completion in await running)
    await held
    assert engine.steps >= before + longest and (engine.running, engine.paused) == (0, False)


async def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while True:
        if done():
            return
        assert time.monotonic() < end
        await asyncio.sleep(TICK_S)


async def test_a_start_that_nobody_waits_for_leaves_no_process(built: Built, folder: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def is_alone() -> bool:
        return {child.pid for child in psutil.Process().children(recursive=True)} <= before

    start = asyncio.create_task(Engine.build(str(folder), CONFIG))
    await until(lambda: not is_alone())
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await until(is_alone)


async def test_the_arguments_that_were_read_from_vllms_source_are_its_own(built: Built) -> None:
    from vllm import AsyncEngineArgs
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    options = read_options()
    assert options is not None
    assert options.arguments.keys() == {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    assert list(options.quantizations) == QUANTIZATION_METHODS and "fp8" in options.cache_dtypes


async def test_a_dead_engine_says_so(built: Built) -> None:
    """The last test: it takes the engine away."""
    engine = built.engine
    await engine.check_health()
    core = max(psutil.Process().children(recursive=True), key=lambda p: p.memory_info().rss)  # the other one tracks
    core.kill()
    with pytest.raises(WorkerBroken, match="died"):
        await engine.generate(ask(1))
    with pytest.raises(WorkerBroken, match="died"):
        await engine.check_health()
    engine.close()
    with pytest.raises(WorkerBroken, match="closed"):
        await engine.check_health()
