"""The fp32 shards of a model under ZeRO-3: the exponential moving average that is kept on them, and packing them whole on rank 0.

Invariants: every rank averages its own shard, nothing is gathered for that; the average is taken against the fp32 master shards in
fp32, whatever the compute dtype, for at a learning rate of 1e-6 a bfloat16 average would round every change away; a gather is
finished before anything else communicates.

A model here is a DeepSpeed engine. Whose shards are averaged or packed, and when, is decided in `engine`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learners import wire
from protocol.types import TensorSpec

_GATHER_BYTES = 256 << 20  # whole tensors held at once by rank 0 while packing: a few layers of a 7B model
Shards = dict[str, torch.Tensor]


def master_shards(engine: Any) -> Shards:
    """This rank's fp32 master shard of each parameter of a trained model, the last rank's padding included."""
    from deepspeed.utils import safe_get_local_fp32_param

    return {name: safe_get_local_fp32_param(param) for name, param in engine.module.named_parameters()}


class Average:
    """ema <- decay * ema + (1 - decay) * master, on this rank's shards. Starts as the masters.

    `mirror` is a model without optimizer whose weights are the average, or None if only the shards are wanted. With float32
    compute its partitions are the shards themselves; with bfloat16 they are a copy beside them.
    """

    def __init__(self, masters: Shards, decay: float, mirror: Any | None) -> None:
        self._decay, self._mirror = decay, mirror
        mirrored = {name: param.ds_tensor.data for name, param in self._mirrored()}
        self.shards: Shards = {
            name: mirrored[name]
            if name in mirrored and mirrored[name].dtype is torch.float32
            else master.detach().clone()
            for name, master in masters.items()
        }

    def update(self, masters: Shards) -> None:
        """Takes one step's weights in."""
        self._forget_gathered()
        with torch.no_grad():
            for name, shard in self.shards.items():
                shard.lerp_(masters[name], 1.0 - self._decay)
        self._copy_down()

    def load(self, shards: Shards) -> None:
        """Goes on from saved shards of the same layout."""
        self._forget_gathered()
        with torch.no_grad():
            for name, shard in self.shards.items():
                shard.copy_(shards[name])
        self._copy_down()

    def _mirrored(self) -> Iterator[tuple[str, Any]]:
        return iter(()) if self._mirror is None else self._mirror.module.named_parameters()

    def _forget_gathered(self) -> None:
        """A copy gathered for a forward must not outlive the shards it came from."""
        if self._mirror is not None:
            self._mirror.optimizer.empty_partition_cache()

    def _copy_down(self) -> None:
        with torch.no_grad():
            for name, param in self._mirrored():
                if param.ds_tensor.data_ptr() != self.shards[name].data_ptr():
                    param.ds_tensor.copy_(self.shards[name])


def pack(
    shapes: list[tuple[str, tuple[int, ...]]], shards: Shards, dtype: str
) -> tuple[tuple[TensorSpec, ...], NDArray[np.uint8] | None]:
    """Collective: whole tensors, packed as `wire` lays them out, on rank 0.

    Args:
        shapes: names and whole shapes, in the model's order.
        shards: this rank's part of each, flat and of equal length on every rank. Each is cast before it travels.
        dtype: "float32" or "bfloat16", of the packed tensors.

    Returns:
        The layout and, on rank 0, the bytes.
    """
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    specs = wire.layout(shapes, dtype)
    packed = np.empty(wire.total_bytes(specs), np.uint8) if rank == 0 else None
    wire_dtype = getattr(torch, dtype)
    for group in wire.in_groups(specs, _GATHER_BYTES):
        parts = [shards[specs[k].name].detach().to(wire_dtype) for k in group]
        flat = torch.cat(parts)
        whole = [torch.empty_like(flat) for _ in range(world)] if rank == 0 else None
        torch.distributed.gather(flat, whole, dst=0)
        if packed is None or whole is None:
            continue
        split = [torch.split(piece, [len(part) for part in parts]) for piece in whole]
        for place, k in enumerate(group):
            room = torch.from_numpy(packed[specs[k].offset : specs[k].offset + specs[k].nbytes]).view(wire_dtype)
            room.copy_(torch.cat([pieces[place] for pieces in split])[: len(room)])
    return specs, packed
