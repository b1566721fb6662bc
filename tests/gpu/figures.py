"""The figures of one card: generation, learner and push, for a model size. `python -m tests.gpu.figures WHAT SIZE OUT`.

Each runs in a process of its own, as the benchmarks do, with the same code where it is the same measurement. On a machine without a
GPU the very same functions run on the CPU, for the test that they work at all (size `tiny`); nobody reads those figures.

| what | ours | other |
|---|---|---|
| generation | tokens/s through GenerationWorker, 64 requests in flight | `LLM.generate` of the same prompts |
| learner | FLOP/s that a DPO step needs, reference forward included | the card's dense bf16 peak: the ratio is the MFU |
| push-ipc, push-host | s of a whole push | s of one copy of the same bytes in the card's memory |
| stall-ipc, stall-host | s that generation stands still | s of the whole push |
"""

import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from learners.flops import peak_of
from protocol.recipe import GenerationConfig, LearnerConfig, LoraConfig, PushConfig, QuirksConfig, parse_recipe
from protocol.rows import SCHEMA, to_batch
from protocol.types import Ask, Completion, Group, Item, Sampling
from tests.benchmarks.shapes import SHAPES, Shape, make_model
from tests.gpu.flops import step_flops, trains_in_full

CUDA = torch.cuda.is_available()
CARD = torch.cuda.get_device_name(0) if CUDA else "no card"
IN_FLIGHT, ASKS, NEW_TOKENS, PROMPT_WORDS = 64, 512, 256, 40
PAIRS, PROMPT, ANSWER = 32, 256, 256  # of a learner step; tokens
STEPS, WARM_UP = 10, 3


@dataclass(frozen=True)
class Figure:
    """One line of the table. `other` is None where there is nothing to compare with, and `note` says why."""

    name: str
    ours: float
    other: float | None
    unit: str
    note: str
    card: str = CARD


def engine_config(shape: Shape, share: float) -> GenerationConfig:
    """An engine that may use `share` of the card beyond its weights."""
    if not CUDA:
        return GenerationConfig(dtype="bfloat16", max_model_len=512, kv_cache_gib=0.25, max_num_seqs=IN_FLIGHT)
    weights = 2 * shape.parameters / torch.cuda.get_device_properties(0).total_memory
    return GenerationConfig(
        dtype="bfloat16",
        max_model_len=2048,
        max_num_seqs=IN_FLIGHT,
        enforce_eager=False,
        gpus_per_worker=0.5,
        gpu_memory_utilization=min(0.9, round(weights + share, 2)),
        start_deadline_s=1200,
    )


# -- generation


async def _ask_all(worker: Any, config: GenerationConfig, asks: list[Ask]) -> list[list[Completion]]:
    from actors.clients import RemoteGenerator
    from actors.pool import WorkerPool
    from protocol.recipe import RouterConfig

    pool = WorkerPool([worker], RouterConfig(), "figures")
    player, places = RemoteGenerator(pool, config.deadline_s), asyncio.Semaphore(IN_FLIGHT)

    async def one(ask: Ask) -> list[Completion]:
        async with places:
            return await player.generate(ask)

    return list(await asyncio.gather(*(one(ask) for ask in asks)))


def generation(size: str, asks: int = ASKS, new_tokens: int = NEW_TOKENS) -> list[Figure]:
    """Ours first, then the peer with the card to itself."""
    import ray

    from actors.engine.arguments import engine_arguments, prepare_environment
    from actors.generation import GenerationWorker
    from tests.benchmarks.generation import replay

    config = engine_config(SHAPES[size], share=0.3)
    recipe = parse_recipe({"generation": config.model_dump(), "sampling": {"max_new_tokens": new_tokens}})
    draw = random.Random(0)
    words = [
        " ".join(draw.choice(("a", "few", "words", "to", "train")) for _ in range(PROMPT_WORDS)) for _ in range(asks)
    ]
    sampling = Sampling(1.0, 1.0, new_tokens)
    made = [Ask(str(k), ({"role": "user", "content": text},), (k,), sampling) for k, text in enumerate(words)]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make_model(model, SHAPES[size])
        ray.init(include_dashboard=False, log_to_driver=False)
        actor = ray.remote(GenerationWorker).options(num_cpus=0, num_gpus=config.gpus_per_worker, max_concurrency=2000)
        worker = actor.remote("attacker", str(model), config)
        ray.get(worker.start.remote(), timeout=config.start_deadline_s)
        asyncio.run(_ask_all(worker, config, made[:IN_FLIGHT]))  # compiles and warms
        began = time.perf_counter()
        answers = asyncio.run(_ask_all(worker, config, made))
        ours = sum(len(c.token_ids) for answer in answers for c in answer) / (time.perf_counter() - began)
        ray.get(worker.shutdown.remote(), timeout=120)
        ray.kill(worker)
        ray.shutdown()
        prepare_environment(config, cuda=CUDA)
        from vllm import LLM

        llm = LLM(**engine_arguments(str(model), config, cuda=CUDA))
        asked = list(zip(made, answers, strict=True))
        replay(llm, recipe, asked[:IN_FLIGHT])
        other = replay(llm, recipe, asked)
        llm.llm_engine.engine_core.shutdown()
    note = f"{asks} requests of {new_tokens} tokens, {IN_FLIGHT} in flight"
    return [Figure(f"generation-{size}", ours, other, "tokens/s", note)]


# -- learner


def _rows(vocabulary: int, pairs: int, prompt: int, answer: int) -> Any:
    import pyarrow as pa

    draw, groups = random.Random(0), []
    for game in range(pairs):
        asked = tuple(draw.randrange(vocabulary) for _ in range(prompt))
        items = []
        for k in range(2):
            ids = tuple(draw.randrange(vocabulary) for _ in range(answer))
            items.append(Item(Completion.of(asked, ids, (-1.0,) * answer), "ok", float(k)))
        groups.append(Group(game, "attacker", 0, "s", "harmful", tuple(items), (), (), 0))
    return pa.Table.from_batches([to_batch(groups)], schema=SCHEMA)


def learner(
    size: str, pairs: int = PAIRS, prompt: int = PROMPT, answer: int = ANSWER, steps: int = STEPS
) -> list[Figure]:
    """A DPO step on one rank, every parameter or adapters, as `trains_in_full` says."""
    from learners.batch.build import make_batch
    from learners.zero3.engine import ZeroEngine

    shape = SHAPES[size]
    full = trains_in_full(shape, torch.cuda.get_device_properties(0).total_memory if CUDA else 80 << 30)
    if full is None:
        return []
    lora = None if full else LoraConfig()
    reference = "ema" if full else "frozen"
    config = LearnerConfig(
        ranks=1, dtype="bfloat16", reference=reference, sampler="ema" if full else "policy", lora=lora, max_tokens=8192
    )
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cuda" if CUDA else "cpu"}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make_model(model, shape)
        store = f"file://{folder}/store"
        torch.distributed.init_process_group("nccl" if CUDA else "gloo", init_method=store, rank=0, world_size=1)
        engine = ZeroEngine(str(model), config, steps + WARM_UP, 0, QuirksConfig())
        rows = _rows(shape.vocab, pairs, prompt, answer)
        for step in range(steps + WARM_UP):
            began = time.perf_counter()
            engine.step(make_batch(rows, config, QuirksConfig(), 0, 1), step)
            if CUDA:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        torch.distributed.destroy_process_group()
    step_s = statistics.median(seconds[WARM_UP:])
    lengths = [prompt + answer] * (2 * pairs)
    flops = step_flops(shape, lengths, 2 * pairs * answer, full)
    what = "every parameter" if full else f"LoRA rank {LoraConfig().rank}"
    note = f"{what}, {step_s:.3f} s/step, {sum(lengths) / step_s:,.0f} tokens/s"
    peak = peak_of(CARD)
    if peak is None:
        note += "; no MFU: the card's peak is not known here"
    return [Figure(f"learner-{size}", flops / step_s, peak, "FLOP/s", note)]


# -- push


def _copy_s(nbytes: int) -> float:
    """Seconds of one copy in the card's own memory, or in the machine's where there is no card."""
    device = "cuda" if CUDA else "cpu"
    source, target = (torch.zeros(nbytes, dtype=torch.uint8, device=device) for _ in range(2))
    target.copy_(source)
    if CUDA:
        torch.cuda.synchronize()
    began = time.perf_counter()
    target.copy_(source)
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def push(size: str, transport: str) -> list[Figure]:
    """Medians of several pushes to a worker that generates all the while; the learner is a process with a share of the card."""
    import ray

    from actors.generation import GenerationWorker
    from cluster.publish.actor import WeightPublisher
    from cluster.publish.client import PublisherSink, VersionClient
    from cluster.publish.native import NativeSink
    from tests.benchmarks.push import ROUNDS, Learner, pushes

    limits = PushConfig(deadline_s=120.0)
    config = engine_config(SHAPES[size], share=0.1)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make_model(model, SHAPES[size])
        ray.init(include_dashboard=False, log_to_driver=False)
        publisher: Any = ray.remote(WeightPublisher).options(num_cpus=0, max_concurrency=100)
        publisher = publisher.remote(limits, 1200.0, (), ["attacker"] if transport == "ipc" else [])
        worker: Any = ray.remote(GenerationWorker).options(
            num_cpus=0, num_gpus=config.gpus_per_worker, max_concurrency=100
        )
        worker = worker.remote("attacker", str(model), config, VersionClient(publisher, "attacker-0"))
        ray.get(publisher.register.remote("attacker", [worker]))
        ray.get(worker.start.remote(), timeout=config.start_deadline_s)
        sink = NativeSink(publisher, "ipc", limits, 1) if transport == "ipc" else PublisherSink(publisher)
        sender: Any = ray.remote(Learner).options(num_cpus=0, num_gpus=0.5 if CUDA else 0)
        sender = sender.remote(model, sink, "cuda" if CUDA else "cpu")
        nbytes = ray.get(sender.nbytes.remote(), timeout=600)

        def send() -> tuple[float, float]:
            took: tuple[float, float] = ray.get(sender.push.remote(), timeout=300)
            return took

        found = asyncio.run(pushes(worker, publisher, send, lambda: _copy_s(nbytes)))
        phases = ray.get(publisher.stats.remote(), timeout=60).players["attacker"].pushes.phases
        if (transport == "ipc") == ("send" in phases):
            raise RuntimeError(f"the versions did not travel through {transport}; phases {sorted(phases)}")
        ray.get(sender.close.remote(), timeout=120)
        ray.get(worker.shutdown.remote(), timeout=120)
        ray.shutdown()
    took, stall, copied = (statistics.median(found[name]) for name in ("push", "stall", "memcpy"))
    note = f"median of {ROUNDS} pushes of {nbytes / 1e9:.2f} GB"
    return [
        Figure(f"push-{transport}-{size}", took, copied, "s", f"{note}; other: one copy on the device"),
        Figure(f"stall-{transport}-{size}", stall, took, "s", f"{note}; other: the whole push"),
    ]


MEASURES: dict[str, Callable[[str], list[Figure]]] = {
    "generation": generation,
    "learner": learner,
    "push-ipc": lambda size: push(size, "ipc"),
    "push-host": lambda size: push(size, "host"),
}

if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps([asdict(figure) for figure in MEASURES[sys.argv[1]](sys.argv[2])]))
