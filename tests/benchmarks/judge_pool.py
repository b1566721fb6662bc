"""Tokens/s of the judge pool (Ray actor, rubric, parsing and all) against the same engine settings in `LLM.generate`.

Both get the same prompts, sampling parameters and seeds, prefix caching on, in alternating rounds with texts of their own, so that
only the rubric is ever found in the cache. `LLM.generate` gets a round's prompts in one call; the pool gets them as games
ask them: from many callers, one group's questions at a time.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.sandbox.world import heldout_seeds, tasks, train_seeds, vocabulary
from protocol.recipe import Recipe, parse_recipe
from protocol.types import JudgeRequest, Message
from tests.benchmarks.harness import Result, write_results

ROUNDS, REQUESTS, GROUP = 3, 96, 2  # a group of two responses is two questions, one for each order
NEW_TOKENS = 96  # of a verdict: shorter than real reasoning, which makes it harder for the pool, not easier
WORDS = 60  # of a query and of each response


def recipe_of() -> Recipe:
    """A judge LM with the settings of the sandbox's engines."""
    return parse_recipe(
        {
            "judge": {
                "kind": "lm",
                "workers": 1,
                "attempts": 1,  # random weights write no verdict: nothing is asked twice
                "cache_entries": 0,
                "deadline_s": 600.0,
                "sampling": {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": NEW_TOKENS, "seeded": True},
                "engine": {"dtype": "float32", "max_model_len": 4096, "kv_cache_gib": 1.0, "max_num_seqs": 64},
            }
        }
    )


def round_of(number: int) -> list[list[JudgeRequest]]:
    """One round's questions, by group."""
    rng = random.Random(number)
    words = vocabulary()

    def text() -> str:
        return " ".join(rng.choice(words) for _ in range(WORDS))

    groups = []
    for k in range(REQUESTS // GROUP):
        query, a, b = text(), text(), text()
        seed = number * 100_000 + 10 * k
        groups.append(
            [
                JudgeRequest("compliance", "benign", query, (a, b), seed),
                JudgeRequest("compliance", "benign", query, (b, a), seed + 5),
            ]
        )
    return groups


def worker_of(recipe: Recipe, model: str) -> Any:
    """The judge actor, its engine started."""
    import ray

    from cluster.run.judge_engine import engine_builder
    from judge.worker import JudgeWorker

    build = engine_builder(recipe.judge, model)
    worker = ray.remote(JudgeWorker).options(num_cpus=0, max_concurrency=2000).remote(recipe.judge, "lm:bench", build)
    ray.get(worker.start.remote(), timeout=300)
    return worker


async def tokens_of(worker: Any) -> int:
    """Tokens that its engine has written so far."""
    tokens: int = (await worker.stats.remote()).usage.tokens
    return tokens


async def drive(worker: Any, recipe: Recipe, groups: list[list[JudgeRequest]]) -> tuple[float, int]:
    """Seconds and tokens of one round through the pool."""
    from actors.pool import WorkerPool
    from judge.pool import JudgePool

    pool = JudgePool(WorkerPool([worker], recipe.router, "bench"), recipe.judge.deadline_s, recipe.judge.attempts)
    before = await tokens_of(worker)
    began = time.perf_counter()
    await asyncio.gather(*(pool.judge(group) for group in groups))
    seconds = time.perf_counter() - began
    return seconds, await tokens_of(worker) - before


def engine_of(recipe: Recipe, model: str) -> Any:
    """The peer: `vllm.LLM` with the judge engine's own arguments."""
    from actors.engine.arguments import engine_arguments, prepare_environment

    prepare_environment(recipe.judge.engine, cuda=False)
    from vllm import LLM

    arguments = engine_arguments(model, recipe.judge.engine, cuda=False, updatable=False)
    return LLM(**arguments)


def close_engine(llm: Any) -> None:
    """Ends the engine's process, which this one would otherwise wait for at its exit, for ever."""
    llm.llm_engine.engine_core.shutdown()


def drive_peer(llm: Any, recipe: Recipe, groups: list[list[JudgeRequest]]) -> tuple[float, int]:
    """Seconds and tokens of one round through `LLM.generate`; rendering and chat template are counted, as in the pool."""
    from vllm import SamplingParams

    from judge.rubric import load_rubrics
    from judge.sampling import fill_in
    from protocol.randomness import derive_seed

    rubrics = load_rubrics(recipe.judge.rubrics)
    began = time.perf_counter()
    requests = [request for group in groups for request in group]
    chats: list[tuple[Message, ...]] = [rubrics.render(request)[0] for request in requests]
    tokenizer = llm.get_tokenizer()
    prompts = [
        {
            "prompt_token_ids": tokenizer.apply_chat_template(
                list(chat), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        }
        for chat in chats
    ]
    s = fill_in(recipe.judge.sampling)
    params = [
        SamplingParams(
            temperature=s.temperature,
            top_p=s.top_p,
            max_tokens=s.max_new_tokens,
            seed=derive_seed(r.seed, 0),
            logprobs=0,
        )
        for r in requests
    ]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return time.perf_counter() - began, sum(len(o.outputs[0].token_ids) for o in outputs)


def measure() -> list[Result]:
    """Alternating rounds of both; the medians' ratio."""
    import ray

    from cluster.inputs.random_model import make_random_model
    from judge.rubric import load_rubrics

    recipe = recipe_of()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        rubrics = load_rubrics(recipe.judge.rubrics)
        seeds = [*train_seeds(), *heldout_seeds()]
        texts = [rubrics.render(request)[0][-1]["content"] for request in round_of(0)[0]]
        texts += [seed.text for seed in seeds] + [task.text for task in tasks("benign", False)]
        make_random_model(model, texts * 4, seed=0, max_tokens=4096)
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        llm = engine_of(recipe, str(model))
        worker = worker_of(recipe, str(model))
        rates: dict[str, list[float]] = {"pool": [], "peer": []}
        for number in range(ROUNDS + 1):
            groups = round_of(number)
            seconds, tokens = asyncio.run(drive(worker, recipe, groups))
            peer_seconds, peer_tokens = drive_peer(llm, recipe, groups)
            if number:  # the first round warms both up
                rates["pool"].append(tokens / seconds)
                rates["peer"].append(peer_tokens / peer_seconds)
        close_engine(llm)
        ray.shutdown()
    pool, peer = (statistics.median(rates[name]) for name in ("pool", "peer"))
    note = f"median of {ROUNDS} rounds of {REQUESTS} verdicts, 16 M random parameters, standard rubric, prefix caching"
    return [Result("judge-pool", pool, peer, "tokens/s", 0.90, True, note)]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
