"""Tokens/s through RolloutWorker and GenerationWorker, 64 games in flight, against the same token work in `LLM.generate`.

The model is the sandbox's attacker with its MLP widened by zeros: it writes the same valid attacks and costs the arithmetic of some
16 M parameters. It plays both sides on one GenerationWorker (a Ray actor); the rollout worker runs here, as it runs in a process of
its own in a run. The judge answers at once. The peer gets every prompt and seed of the games that were just played, in one call.
Ours is measured while 64 games are in flight; the peer over its whole call.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protocol.recipe import Recipe, parse_recipe
from protocol.rules import GameRules
from protocol.types import Ask, Completion, Deal, GameRecord, JudgeRequest, Verdict
from tests.benchmarks.harness import Result, write_results

ROUNDS, GAMES, IN_FLIGHT = 3, 320, 64
WIDER = 108  # times the sandbox attacker's MLP
LIMIT_S = 600.0


def recipe_of() -> Recipe:
    """The sandbox's game and engine."""
    from cluster.inputs.recipe_file import load_recipe

    values = load_recipe(Path("deploy/recipes/sandbox.yaml")).model_dump()
    values["game"]["in_flight"] = IN_FLIGHT
    values["generation"] |= {"max_num_seqs": 128, "dtype": "float32"}
    return parse_recipe(values)


def widen(source: Path, folder: Path, factor: int) -> int:
    """Writes the model of `source` with an MLP `factor` times as wide, the new columns zero. Returns its parameters."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    small = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    shutil.copytree(source, folder)
    config = small.config
    width = config.intermediate_size
    config.intermediate_size = factor * width
    large = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = small.state_dict()
    with torch.no_grad():
        for name, wide in large.state_dict().items():
            wide.zero_()
            wide[tuple(slice(n) for n in weights[name].shape)] = weights[name]
    large.save_pretrained(folder)
    return sum(p.numel() for p in large.parameters())


class Recorded:
    """A generator that notes what was asked, and when how many tokens came back."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.done: list[tuple[float, Ask, list[Completion]]] = []

    async def generate(self, ask: Ask) -> list[Completion]:
        completions: list[Completion] = await self._inner.generate(ask)
        self.done.append((time.perf_counter(), ask, completions))
        return completions


class AtOnce:
    """A judge that takes no time. A fake: judges are not what is measured."""

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        return [
            Verdict("stub", "stub@1", faithful=True)
            if r.criterion == "faithfulness"
            else Verdict("stub", "stub@1", scores=tuple(5.0 for _ in r.responses))
            for r in requests
        ]


class Deals:
    """Deals the games of one round and notes when each came back. A fake: the replay buffer is not what is measured."""

    def __init__(self, deals: list[Deal]) -> None:
        self._left, self._all = list(reversed(deals)), len(deals)
        self.ends: list[float] = []
        self.abandoned = 0
        self.over = asyncio.Event()

    async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
        if not self._left:
            await asyncio.sleep(wait_s)
        return [self._left.pop() for _ in range(min(limit, len(self._left)))]

    async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
        self.ends += [time.perf_counter()] * len(records)
        self._note()

    async def abandon(self, worker: str, game_id: int, reason: str) -> None:
        self.abandoned += 1
        self._note()

    def _note(self) -> None:
        if len(self.ends) + self.abandoned >= self._all:
            self.over.set()


async def play(worker: Any, recipe: Recipe, number: int) -> tuple[float, list[tuple[Ask, list[Completion]]]]:
    """Tokens/s while 64 games were in flight, and everything that was asked in the round."""
    from actors.clients import RemoteGenerator
    from actors.pool import WorkerPool
    from actors.rollout import RolloutWorker
    from cluster.sandbox.world import train_seeds

    seeds = train_seeds()
    deals = Deals([Deal(number * GAMES + k, seeds[(number * GAMES + k) % len(seeds)]) for k in range(GAMES)])
    pool = WorkerPool([worker], recipe.router, "bench")
    player = Recorded(RemoteGenerator(pool, recipe.generation.deadline_s))
    rollout = RolloutWorker("bench", GameRules.of(recipe), IN_FLIGHT, deals, player, player, AtOnce())
    running = asyncio.create_task(rollout.run())
    async with asyncio.timeout(LIMIT_S):
        await deals.over.wait()
    await rollout.stop()
    await running
    if deals.abandoned:
        raise RuntimeError(f"{deals.abandoned} of {GAMES} games were abandoned")
    begin, end = deals.ends[IN_FLIGHT - 1], deals.ends[GAMES - IN_FLIGHT]  # from here to there the worker is full
    tokens = sum(len(c.token_ids) for at, _, cs in player.done for c in cs if begin < at <= end)
    return tokens / (end - begin), [(ask, completions) for _, ask, completions in player.done]


def replay(llm: Any, recipe: Recipe, asked: list[tuple[Ask, list[Completion]]]) -> float:
    """Tokens/s of the same prompts and seeds in one call."""
    from vllm import SamplingParams

    prompts, params = [], []
    for ask, completions in asked:
        for seed, completion in zip(ask.seeds, completions, strict=True):
            room = min(ask.sampling.max_new_tokens, recipe.generation.max_model_len - len(completion.prompt_ids))
            prompts.append({"prompt_token_ids": list(completion.prompt_ids)})
            params.append(
                SamplingParams(
                    temperature=ask.sampling.temperature,
                    top_p=ask.sampling.top_p,
                    max_tokens=room,
                    seed=seed if ask.sampling.seeded else None,
                    logprobs=0,
                )
            )
    began = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    return sum(len(o.outputs[0].token_ids) for o in outputs) / seconds


def measure() -> list[Result]:
    """Alternating rounds of both; the medians' ratio."""
    import ray

    from actors.engine.arguments import engine_arguments, prepare_environment
    from actors.generation import GenerationWorker
    from cluster.sandbox.cache import ensure_sandbox
    from tests.benchmarks.judge_pool import close_engine

    recipe = recipe_of()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        parameters = widen(Path(ensure_sandbox().attacker), model, WIDER)
        prepare_environment(recipe.generation, cuda=False)
        from vllm import LLM

        llm = LLM(**engine_arguments(str(model), recipe.generation, cuda=False))
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        actor = ray.remote(GenerationWorker).options(num_cpus=0, max_concurrency=2000)
        worker = actor.remote("attacker", str(model), recipe.generation)
        ray.get(worker.start.remote(), timeout=300)
        rates: dict[str, list[float]] = {"ours": [], "peer": []}
        for number in range(ROUNDS + 1):
            rate, asked = asyncio.run(play(worker, recipe, number))
            peer = replay(llm, recipe, asked)
            if number:  # the first round warms both up
                rates["ours"].append(rate)
                rates["peer"].append(peer)
        close_engine(llm)
        ray.kill(worker)
        ray.shutdown()
    ours, other = (statistics.median(rates[name]) for name in ("ours", "peer"))
    note = f"median of {ROUNDS} rounds of {GAMES} games, {IN_FLIGHT} in flight, {parameters / 1e6:.0f} M parameters"
    return [Result("generation", ours, other, "tokens/s", 0.90, True, note)]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
