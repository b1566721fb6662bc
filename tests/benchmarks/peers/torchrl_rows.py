"""TorchRL's replay buffer in memory: rows are made tensors and extended a batch at a time, and each is sampled once on average."""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from rows import row_of
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement


def tensors(rows: list[dict[str, Any]]) -> TensorDict:
    text = bytearray("".join(text for row in rows for text in row["texts"]).encode())  # tensors hold no strings
    return TensorDict(
        {
            "prompt": torch.from_numpy(np.array([row["prompt"] for row in rows], np.int32)),
            "ids": torch.from_numpy(np.array([row["ids"] for row in rows], np.int32)),
            "logprobs": torch.from_numpy(np.array([row["logprobs"] for row in rows], np.float32)),
            "reward": torch.tensor([[8.0, 2.0]] * len(rows)),
            "version": torch.zeros(len(rows), dtype=torch.int32),
            "text": torch.frombuffer(text, dtype=torch.uint8).view(len(rows), 2, -1),
        },
        batch_size=[len(rows)],
    )


def main() -> None:
    tokens, count, batch = (int(a) for a in sys.argv[1:4])
    rows = [row_of(k, tokens) for k in range(count)]
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(count), sampler=SamplerWithoutReplacement(), batch_size=batch
    )
    buffer.extend(tensors(rows[:batch]))
    buffer.sample()
    began = time.perf_counter()
    done = 0
    for start in range(0, count - batch + 1, batch):
        buffer.extend(tensors(rows[start : start + batch]))
        buffer.sample()
        done += batch
    print(json.dumps({"rows_s": done / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
