"""Pre-trains the sandbox's two tiny Qwen2 models from scratch on the CPU, in plain torch, and writes Hugging Face folders.

Run as `python -m cluster.sandbox.pretrain PLAYER FOLDER`, with one thread. The same source and versions on the same kind of
processor give the same weights. It knows nothing of where folders are cached (`cache`) or what the samples are (`samples`).
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from cluster.sandbox.samples import Sample, attacker_sample, defender_sample
from cluster.sandbox.tiny_qwen import IGNORED, build_qwen2, save, tell_step
from cluster.sandbox.tokenizer import build_tokenizer, encode
from protocol.roles import Player

HIDDEN, LAYERS, HEADS, INTERMEDIATE = 96, 2, 3, 256
MAX_POSITIONS = 256  # tokens
STEPS, BATCH = 360, 64
LR, WARMUP = 3e-3, 20


def _make_batch(tokenizer: Any, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [encode(tokenizer, sample) for sample in samples]
    width = max(len(ids) for ids, _ in rows)
    ids_BT = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels_BT = torch.full((len(rows), width), IGNORED)
    for k, (ids, start) in enumerate(rows):
        ids_BT[k, : len(ids)] = torch.tensor(ids)
        labels_BT[k, start : len(ids)] = torch.tensor(ids[start:])
    return ids_BT, labels_BT


def pretrain(tokenizer: Any, draw: Callable[[random.Random], Sample], seed: int, steps: int = STEPS) -> Any:
    """A model that writes like the samples of `draw`.

    Padding is on the right and needs no mask: attention is causal and the labels skip it.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    model = build_qwen2(tokenizer, HIDDEN, LAYERS, HEADS, INTERMEDIATE, MAX_POSITIONS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, max(0.02, 1.0 - step / steps))
    )
    model.train()
    for step in range(steps):
        ids_BT, labels_BT = _make_batch(tokenizer, [draw(rng) for _ in range(BATCH)])
        hidden_BTH = model.model(input_ids=ids_BT).last_hidden_state
        learned_BT = labels_BT[:, 1:] != IGNORED  # only these positions go through the output layer, half of the work
        logits_NV = model.lm_head(hidden_BTH[:, :-1][learned_BT])
        loss = cross_entropy(logits_NV, labels_BT[:, 1:][learned_BT])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        tell_step(step + 1, steps)
    return model.eval()


def main(player: Player, folder: Path) -> None:
    """Pre-trains one player and saves it."""
    torch.set_num_threads(1)
    draw, seed = {"attacker": (attacker_sample, 1), "defender": (defender_sample, 2)}[player]
    tokenizer = build_tokenizer()
    save(pretrain(tokenizer, draw, seed), tokenizer, folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))  # type: ignore[arg-type]
