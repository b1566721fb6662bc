"""From ZeRO-3 shards to one packed version in host memory, gathered a few layers at a time.

Invariants: all ranks join; a gather is finished before anything else communicates, and all of them have one deadline; every byte
that rank 0 receives is written once more, to its place. Where that is, `buffers` says; what it is for, `engine`.
"""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learners.zero3.shards import Shards
from protocol import packed as wire
from protocol.types import TensorSpec

GROUP_BYTES = 256 << 20  # `push.stage_mib`'s default
STAGE_S = 60.0  # `push.deadlines.stage_s`'s default

Room = Callable[[int], NDArray[np.uint8]]


def plain_room(nbytes: int) -> NDArray[np.uint8]:
    """Ordinary memory, for an export."""
    return np.empty(nbytes, np.uint8)


def pack(
    shapes: list[tuple[str, tuple[int, ...]]],
    shards: Shards,
    dtype: str,
    room: Room = plain_room,
    group_bytes: int = GROUP_BYTES,
    deadline_s: float = STAGE_S,
    checksum: wire.Checksum | None = None,
) -> tuple[tuple[TensorSpec, ...], NDArray[np.uint8] | None]:
    """Collective: whole tensors, packed as `wire` lays them out, on rank 0.

    Args:
        shapes: names and whole shapes, in the model's order.
        shards: this rank's part of each, flat and of equal length on every rank. Each is cast before it travels.
        dtype: "float32" or "bfloat16", of the packed tensors.
        room: gives rank 0 the memory for so many bytes.
        group_bytes: of whole tensors gathered at once.
        deadline_s: for all of it.
        checksum: on rank 0 gets the bytes in their order, each group when it is in its place; None: nobody wants one.

    Returns:
        The layout and, on rank 0, the bytes.

    Raises:
        TimeoutError: a rank did not join in time.
    """
    deadline = time.monotonic() + deadline_s
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    specs = wire.layout(shapes, dtype)
    packed = room(wire.total_bytes(specs)) if rank == 0 else None
    wire_dtype = getattr(torch, dtype)
    gather = _Gather(wire_dtype, rank, world) if world > 1 else None
    for group in wire.in_groups(specs, group_bytes):
        parts = [shards[specs[k].name].detach() for k in group]  # read now: some are copied as they are read
        pieces = [parts] if gather is None else gather(parts, deadline)
        if packed is None:
            continue
        for place, k in enumerate(group):
            room_of = packed[specs[k].offset : specs[k].offset + specs[k].nbytes]
            _place([piece[place] for piece in pieces], torch.from_numpy(room_of).view(wire_dtype))
        if parts[0].is_cuda:
            torch.cuda.synchronize()  # the next group is gathered into the same memory
        if checksum is not None:
            checksum.add(packed[specs[group[0]].offset : specs[group[-1]].offset + specs[group[-1]].nbytes])
    return specs, packed


def _place(parts: Sequence[torch.Tensor], whole: torch.Tensor) -> None:
    """Writes the ranks' parts of a tensor one behind the other; what the last ones have beyond its end is padding."""
    at = 0
    for part in parts:
        part = part[: len(whole) - at]
        whole[at : at + len(part)].copy_(part, non_blocking=True)
        at += len(part)


class _Gather:
    """Brings the same parts of every rank to rank 0, in memory that all groups share."""

    def __init__(self, dtype: torch.dtype, rank: int, world: int) -> None:
        self._dtype, self._pieces = dtype, world if rank == 0 else 0
        self._send = torch.empty(0, dtype=dtype)
        self._whole: list[torch.Tensor] = []

    def __call__(self, parts: Sequence[torch.Tensor], deadline: float) -> list[Any]:
        """For each rank its parts; empty on the other ranks."""
        lengths = [len(part) for part in parts]
        length = sum(lengths)
        if len(self._send) < length:
            self._send = torch.empty(length, dtype=self._dtype, device=parts[0].device)
            self._whole = [torch.empty_like(self._send) for _ in range(self._pieces)]
        for room, part in zip(torch.split(self._send[:length], lengths), parts, strict=True):
            room.copy_(part)
        whole = [piece[:length] for piece in self._whole]
        work = torch.distributed.gather(self._send[:length], whole or None, dst=0, async_op=True)
        try:
            work.wait(timedelta(seconds=max(0.001, deadline - time.monotonic())))
        except RuntimeError as error:
            if time.monotonic() < deadline:
                raise
            raise TimeoutError("a rank did not join the gather within push.deadlines.stage_s") from error
        return [torch.split(piece, lengths) for piece in whole]
