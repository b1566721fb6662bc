"""The GenerationWorker on the real vLLM: what it samples, and what it serves before, during and after a weight update.

The reference is transformers: the log-probabilities that vLLM reports are recomputed from the weights that should be served.
The tests run in order on one engine, because each start costs seconds; `serve` holds what it should be serving.
"""

import asyncio
import dataclasses
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
import torch

from actors.engine.engine import PromptTooLong
from actors.generation import GenerationWorker, WeightsRefused, WorkerBroken
from protocol.exchange import NotReady
from protocol.recipe import GenerationConfig
from protocol.types import Ask, Completion, Sampling
from tests.integration.tiny_qwen import EOS_ID, VOCABULARY, pack_model, save_tiny, tiny_model
from tests.numerics import ROUNDING, threads
from tests.paths import ROOT

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
CONFIG = GenerationConfig(dtype="float32", max_model_len=1024, kv_cache_gib=0.25, max_num_seqs=64, threads=threads())
PLAIN = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=24, seeded=True)
SHARP = Sampling(temperature=0.6, top_p=0.9, max_new_tokens=24, seeded=True)


def ask(*seeds: int, sampling: Sampling = PLAIN, words: int = 3) -> Ask:
    text = " ".join(f"w{k % 180}-" for k in range(words))
    return Ask("ask", ({"role": "user", "content": text},), seeds, sampling)


def reference_logprobs(model: Any, completion: Completion) -> torch.Tensor:
    """Computed in float64; the model is then a float64 one."""
    ids = torch.tensor([completion.prompt_ids + completion.token_ids])
    with torch.no_grad():
        logp_TV = model.double()(ids).logits[0].log_softmax(-1)
    at = len(completion.prompt_ids)
    return torch.stack([logp_TV[at + k - 1, token] for k, token in enumerate(completion.token_ids)])


def assert_sampled_by(model: Any, completion: Completion) -> None:
    expected = reference_logprobs(model, completion)
    found = torch.tensor(completion.logprobs, dtype=torch.float64)
    # The engine's longest sums: over the vocabulary, and over the positions.
    longest = VOCABULARY + len(completion.prompt_ids) + len(completion.token_ids)
    torch.testing.assert_close(found, expected, atol=longest * ROUNDING, rtol=0)


@dataclass
class Served:
    worker: GenerationWorker
    folder: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("m0")
    save_tiny(folder, seed=0)
    worker = GenerationWorker("attacker", str(folder), CONFIG)
    assert await worker.start() == 0
    yield Served(worker, folder)
    await worker.shutdown()


@pytest.mark.numerics
async def test_more_long_prompts_than_one_engine_step_takes(served: Served) -> None:
    """vLLM cuts such a prompt in two, and on a CPU that kills the engine where requests have seeds (see engine_args)."""
    many = [ask(2 * k, 2 * k + 1, words=300 + k) for k in range(24)]
    answers = await asyncio.gather(*(served.worker.generate(a) for a in many))
    assert [len(group) for group in answers] == [2] * 24
    assert_sampled_by(tiny_model(0), answers[-1][0])


async def test_seeds_decide_what_is_sampled(served: Served) -> None:
    first = await served.worker.generate(ask(1, 2, 3, sampling=SHARP))
    again = await served.worker.generate(ask(3, 1, sampling=SHARP))
    assert [c.token_ids for c in again] == [first[2].token_ids, first[0].token_ids]
    assert len({tuple(c.token_ids) for c in first}) == 3
    assert {(c.first_version, c.last_version) for c in first} == {(0, 0)}


@pytest.mark.numerics
async def test_logprobs_are_those_of_the_untruncated_distribution_at_temperature_one(served: Served) -> None:
    completions = await served.worker.generate(ask(4, 5, sampling=SHARP))
    assert len(completions) == 2 and all(completion.token_ids for completion in completions)
    for completion in completions:
        assert_sampled_by(tiny_model(0), completion)


async def test_a_finished_turn_ends_with_its_end_token_which_is_not_in_the_text(served: Served) -> None:
    completions = await served.worker.generate(ask(*range(24), sampling=dataclasses.replace(PLAIN, max_new_tokens=900)))
    stopped = [c for c in completions if c.finish == "stop"]
    assert stopped
    for c in stopped:
        assert c.token_ids[-1] == EOS_ID and EOS_ID not in c.token_ids[:-1] and "<|im_end|>" not in c.text
    assert any(tag in c.text for c in completions for tag in ("<think>", "</think>", "<prompt>", "</prompt>"))


async def test_a_prompt_without_room_is_refused_and_one_with_little_is_sampled_short(served: Served) -> None:
    with pytest.raises(PromptTooLong, match="max_model_len 1024"):
        await served.worker.generate(ask(1, words=1100))
    (short,) = await served.worker.generate(ask(1, words=1009))
    assert len(short.prompt_ids) + len(short.token_ids) == 1024 and short.finish == "no_room"


async def test_a_push_in_flight_changes_the_weights_under_a_running_completion(served: Served) -> None:
    worker, long = served.worker, dataclasses.replace(PLAIN, max_new_tokens=990)
    (before,) = await worker.generate(ask(9, words=200))
    at_0 = await worker.checksums()
    running = [asyncio.create_task(worker.generate(ask(seed, sampling=long))) for seed in range(100, 116)]
    await worker.generate(ask(1))  # asked last: when it is done, the others have begun
    pushed = tiny_model(1)
    report = await worker.load(*pack_model(pushed, 1), deadline_s=120.0)
    assert (report.version, report.moved, report.ignored) == (1, True, False)
    assert await worker.version() == 1

    crossing = [c for c in itertools.chain(*await asyncio.gather(*running)) if c.last_version == 1]
    assert crossing and all(c.first_version == 0 for c in crossing)

    (after,) = await worker.generate(ask(9, words=200))  # its prompt lies in the prefix cache, computed by version 0
    assert (after.first_version, after.last_version) == (1, 1)
    assert after.token_ids != before.token_ids
    assert_sampled_by(pushed, after)
    at_1 = await worker.checksums()
    assert at_1.keys() == at_0.keys()
    changed = {name for name in at_1 if at_1[name] != at_0[name]}
    assert all(name.endswith(("norm.weight", "layernorm.weight", ".bias")) for name in at_1.keys() - changed)


async def test_a_damaged_push_is_refused_and_costs_nothing(served: Served) -> None:
    worker = served.worker
    held = await worker.checksums()
    manifest, packed = pack_model(tiny_model(2), 2)
    damaged = packed.copy()
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(WeightsRefused, match="checksum"):
        await worker.load(manifest, damaged, deadline_s=120.0)
    with pytest.raises(WeightsRefused, match="bytes"):
        await worker.load(manifest, packed[:-4], deadline_s=120.0)
    assert await worker.version() == 1
    assert await worker.checksums() == held
    (completion,) = await worker.generate(ask(1))
    assert (completion.first_version, completion.last_version) == (1, 1)
    assert_sampled_by(tiny_model(1), completion)


async def test_an_older_or_equal_version_is_ignored(served: Served) -> None:
    held = await served.worker.checksums()
    report = await served.worker.load(*pack_model(tiny_model(3), 1), deadline_s=120.0)
    assert report.ignored and not report.moved and report.version == 1
    assert await served.worker.checksums() == held


class Published:
    """A VersionSource with one version."""

    def __init__(self, version: int, seed: int) -> None:
        self.version, self.seed = version, seed

    async def newest(self, player: str) -> Any:
        return pack_model(tiny_model(self.seed), self.version)

    async def chosen(self, player: str) -> int:
        return self.version

    async def confirm(self, player: str, version: int, layout: str, digest: str) -> bool:
        return True


async def test_a_push_that_fails_half_way_is_never_served_and_the_worker_comes_back_on_the_newest(
    served: Served,
) -> None:
    """Also: what a running engine is given equals what a fresh engine reads from a folder."""
    worker = GenerationWorker("attacker", str(served.folder), CONFIG, Published(version=3, seed=1))
    assert await worker.start() == 3  # never 0: it would be older than what is published
    try:
        assert await worker.checksums() == await served.worker.checksums()
        manifest, packed = pack_model(tiny_model(2), 4)
        holey = dataclasses.replace(manifest, tensors=manifest.tensors[:-1])
        with pytest.raises(WorkerBroken, match="version 4"):
            await worker.load(holey, packed, deadline_s=120.0)
        assert not (await worker.stats()).serving
        assert not (await worker.health()).ready
        with pytest.raises(NotReady):  # at once: only a start builds an engine
            await worker.generate(ask(1))
        assert await worker.start() == 3
        (completion,) = await worker.generate(ask(1))
        assert (completion.first_version, completion.last_version) == (3, 3)
        assert_sampled_by(tiny_model(1), completion)
    finally:
        await worker.shutdown()


async def test_a_fresh_engine_on_the_exported_folder_has_the_same_checksums(served: Served, tmp_path: Path) -> None:
    save_tiny(tmp_path, seed=1)
    fresh = GenerationWorker("attacker", str(tmp_path), CONFIG)
    try:
        await fresh.start()
        assert await fresh.checksums() == await served.worker.checksums()
    finally:
        await fresh.shutdown()


OWNER = """
import asyncio, sys
from actors.generation import GenerationWorker
from protocol.recipe import GenerationConfig

async def main():
    config = GenerationConfig(dtype="float32", max_model_len=256, kv_cache_gib=0.1, max_num_seqs=8)
    await GenerationWorker("attacker", sys.argv[1], config).start()
    print("READY", flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_a_killed_worker_leaves_no_process_behind(served: Served, tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)  # a file, because the engine's process starts by importing its parent's main module
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    owner = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(served.folder), env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    async with asyncio.timeout(200):
        while b"READY" not in await owner.stdout.readline():
            assert owner.returncode is None
    engine = psutil.Process(owner.pid).children(recursive=True)
    assert engine
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    _, alive = psutil.wait_procs(engine, timeout=60)
    for process in alive:
        process.kill()
    assert not alive
