"""Seconds for a DPO step of `ZeroEngine` against a bare DeepSpeed ZeRO-3 loop, and against TRL's `DPOTrainer`.

Sandbox attacker, float32, one rank, one thread, the sandbox recipe's optimizer settings and number of games. Every contender has a
process of its own, because DeepSpeed patches torch for whoever shares one with it, and steps when it is told to: in turn, so
that what else the machine does falls on all of them alike. What a step contains:

| contender | rows to tensors | reference forward | policy forward, backward | AdamW | average |
|---|---|---|---|---|---|
| ours | yes | yes | yes | yes | yes |
| bare | no: ready tensors | yes | yes | yes | no |
| trl | its own collator | yes | yes | yes | no |

The bare loop has our micro-batches and sees as few logits as we do. TRL gets a whole batch in one forward, the fused AdamW, no
logging, saving or evaluation; it runs without DeepSpeed, which on one process would only slow it.
"""

import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from protocol.recipe import LearnerConfig, QuirksConfig
from protocol.rows import SCHEMA, to_batch
from protocol.types import Completion, Group, Item
from tests.benchmarks.harness import Result, write_results

STEPS, WARMUP = 25, 5
PAIRS = 48  # `batch_games` of deploy/recipes/sandbox.yaml
CONFIG = LearnerConfig(
    lr=1e-4,
    lr_final_fraction=1.0,  # a constant rate, which all three can have
    reference="frozen",
    dtype="float32",
    stage3_param_persistence_threshold=0,
    ranks=1,
)
DEADLINE_S = 240.0  # for a contender to start, and for a step

Step = Callable[[], None]


def rows_of(model: str) -> pa.Table:
    """A batch of the attacker's rows: two of its pre-training answers on each prompt, one of them better."""
    from transformers import AutoTokenizer

    from cluster.sandbox.samples import attacker_sample
    from cluster.sandbox.tokenizer import encode

    tokenizer, rng = AutoTokenizer.from_pretrained(model), random.Random(0)
    groups = []
    for game in range(PAIRS):
        chat, items = attacker_sample(rng).messages, []
        ids, start = [], 0
        for k in range(2):
            ids, start = encode(tokenizer, attacker_sample(rng)._replace(messages=chat))
            answer = tuple(ids[start:])
            made = Completion.of(ids[:start], answer, (-1.0,) * len(answer))
            items.append(Item(made, "ok", float(k)))
        groups.append(Group(game, "attacker", 0, "s", "harmful", tuple(items), (), (), 0))
    return pa.Table.from_batches([to_batch(groups)], schema=SCHEMA)


# -- the contenders, each in its own process


def ours(model: str) -> Step:
    from learners.batch.build import make_batch
    from learners.zero3.engine import ZeroEngine

    rows, quirks = rows_of(model), QuirksConfig()
    engine = ZeroEngine(model, CONFIG, STEPS, 0, quirks)
    done = iter(range(1_000_000))

    def step() -> None:
        engine.step(make_batch(rows, CONFIG, quirks, 0, 1), next(done))

    return step


def bare(model: str) -> Step:
    """What anyone would write: two models, DeepSpeed, the loss in four lines."""
    import torch
    from torch.nn.functional import logsigmoid

    from learners.batch.build import make_batch
    from learners.zero3.setup import load_partitioned, prepare_deepspeed, wrap_for_inference, wrap_for_training

    prepare_deepspeed(CONFIG)
    policy = wrap_for_training(load_partitioned(model, CONFIG).train(), CONFIG)
    reference = wrap_for_inference(load_partitioned(model, CONFIG).eval(), CONFIG)
    batch = make_batch(rows_of(model), CONFIG, QuirksConfig(), 0, 1)
    ready = [
        [torch.from_numpy(part) for part in (s.tokens_BT, s.attention_BT, s.targets_BK, s.mask_BK)]
        for s in (micro.sequences for micro in batch.micro)
    ]

    def summed(engine: Any, tokens: Any, attention: Any, targets: Any, mask: Any) -> Any:
        logits = engine(
            input_ids=tokens, attention_mask=attention, logits_to_keep=targets.shape[1], use_cache=False
        ).logits
        logp = logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
        return (logp * mask).sum(-1)

    def step() -> None:
        for k, tensors in enumerate(ready, 1):
            with torch.no_grad():
                held = summed(reference, *tensors)
            won, lost = (summed(policy, *tensors) - held).chunk(2)
            loss = -logsigmoid(CONFIG.beta * (won - lost)).sum() / batch.units
            policy.set_gradient_accumulation_boundary(k == len(ready))
            policy.backward(loss, scale_wrt_gas=False)
        policy.step()

    return step


def trl(model: str, told: Connection) -> None:
    """`DPOTrainer.train`, which waits in a callback between its steps."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from learners.batch.pairs import read_pairs

    class Pretokenized(DPOTrainer):  # type: ignore[misc]
        """The same tokens as ours: its own preparation starts from text."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    class Paced(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            told.send(None)
            told.recv()

    pairs = sorted(read_pairs(rows_of(model)), key=lambda pair: -pair.width)
    examples = [
        {
            "prompt_ids": pair.prompt.tolist(),
            "chosen_ids": pair.chosen.tolist(),
            "rejected_ids": pair.rejected.tolist(),
        }
        for pair in pairs
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=PAIRS,
            gradient_checkpointing=False,
            max_steps=STEPS + WARMUP,
            learning_rate=CONFIG.lr,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            adam_beta1=CONFIG.betas[0],
            adam_beta2=CONFIG.betas[1],
            weight_decay=CONFIG.weight_decay,
            max_grad_norm=CONFIG.clip,
            beta=CONFIG.beta,
            loss_type="sigmoid",
            max_length=None,
            disable_dropout=True,
            precompute_ref_log_probs=False,
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        policy, reference = (AutoModelForCausalLM.from_pretrained(model, dtype="float32") for _ in range(2))
        trainer = Pretokenized(
            model=policy,
            ref_model=reference,
            args=arguments,
            train_dataset=Dataset.from_list(examples * (STEPS + WARMUP)),
            processing_class=AutoTokenizer.from_pretrained(model),
            callbacks=[Paced()],
        )
        told.send(None)
        told.recv()
        trainer.train()


def contender(name: str, model: str, told: Connection) -> None:
    """A process: says when it is ready, and after each step; every message to it asks for one more."""
    os.environ |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
    import torch

    torch.set_num_threads(1)
    if name == "trl":
        trl(model, told)
        return
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        step = {"ours": ours, "bare": bare}[name](model)
        for _ in range(STEPS + WARMUP):
            told.send(None)
            told.recv()
            step()
        told.send(None)


def timed(model: str) -> dict[str, list[float]]:
    """Seconds of each contender's steps after the warm-up, made in turn."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in ("ours", "bare", "trl"):
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=contender, args=(name, model, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
    seconds: dict[str, list[float]] = {name: [] for name in pipes}

    def wait(name: str) -> None:
        if not pipes[name].poll(DEADLINE_S):
            raise TimeoutError(f"{name} has not answered for {DEADLINE_S:g} s")
        pipes[name].recv()

    for name in pipes:
        wait(name)
    for step in range(STEPS + WARMUP):
        for name, pipe in pipes.items():
            began = time.perf_counter()
            pipe.send(None)
            wait(name)
            if step >= WARMUP:
                seconds[name].append(time.perf_counter() - began)
    for process in processes:
        process.terminate()
        process.join()
    return seconds


def measure() -> list[Result]:
    """The medians' ratios."""
    from cluster.sandbox.cache import ensure_sandbox

    seconds = timed(str(ensure_sandbox().attacker))
    mine, plain, theirs = (statistics.median(seconds[name]) for name in ("ours", "bare", "trl"))
    note = f"DPO, sandbox attacker, {PAIRS} pairs, float32, 1 rank, 1 thread, median of {STEPS} steps in turn"
    return [
        Result("learner", mine, plain, "s/step", 1.10, False, note),
        Result("learner-trl", mine, theirs, "s/step", 0.80, False, f"{note}; TRL 1.16"),
    ]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
