"""What the tests of ZeRO-3 share: a recipe's learner, a step's batch, and ranks in processes of their own."""

import os
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.multiprocessing as mp

from protocol.recipe import LearnerConfig, QuirksConfig
from protocol.rows import SCHEMA, to_batch
from protocol.types import Completion, Group, Item, Preference
from tests.numerics import threads

STEPS, HALF = 20, 10
QUIRKS = QuirksConfig()
EPSILON = 1e-2  # Adam's: beside elements of about 0.02, see `steady_engine`
CLIP = 9.0  # binds in some of these steps and not in others
CONFIG = LearnerConfig(
    lr=1e-3,
    warmup_steps=2,
    max_tokens=160,
    dtype="float32",
    stage3_param_persistence_threshold=0,
    clip=CLIP,
)


def table(step: int) -> pa.Table:
    """A step's batch: 1 to 6 groups of unequal lengths, some tied, some cut; step 3 has one pair, step 5 none."""
    draw = np.random.default_rng(step)
    groups = []
    for game in range({3: 1, 5: 0}.get(step, int(draw.integers(2, 7)))):
        prompt = tuple(int(t) for t in draw.integers(8, 200, draw.integers(3, 12)))
        items = []
        for k in range(2):
            ids = tuple(int(t) for t in draw.integers(8, 200, draw.integers(2, 20)))
            state, reward = ("too_long", -1.0) if (k, game % 3) == (1, 1) else ("ok", float(5 + k))
            made = Completion.of(prompt, ids, (-1.0,) * len(ids))
            items.append(Item(made, state, reward))
        tied = game % 4 == 3
        verdict = Preference(0, 1, (5.0, 6.0), (5.0, 6.0), None if tied else 1, not tied)
        groups.append(Group(game, "defender", 0, "s", "benign", tuple(items), (verdict,), (), 0))
    return pa.Table.from_batches([to_batch(groups)], schema=SCHEMA)


def run_ranks(target: Any, *args: Any, ranks: int = 2, timeout_s: float = 300.0) -> None:
    """Runs target(rank, ranks, *args) in `ranks` processes with a gloo group; kills them at the deadline."""
    with tempfile.TemporaryDirectory() as folder:
        context = mp.start_processes(_rank, (ranks, f"file://{folder}/store", target, args), ranks, False)
        deadline = time.monotonic() + timeout_s
        try:
            while not context.join(timeout=1.0):
                assert time.monotonic() < deadline, f"ranks still running after {timeout_s} s"
        finally:
            for process in context.processes:
                process.kill()


def _rank(rank: int, ranks: int, store: str, target: Any, args: Any) -> None:
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    torch.set_num_threads(threads())
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    target(rank, ranks, *args)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # what torch's own static destructors do to its threads is not under test, and now and then it aborts
