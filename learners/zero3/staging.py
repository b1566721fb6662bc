"""From ZeRO-3 shards to one packed version in host memory, gathered a few layers at a time.

Invariants: all ranks join; a gather is finished before anything else communicates, and all of them have one deadline, those of
adapters (`lora`) too, which begins when rank 0 has its memory; every byte that rank 0 receives is written once more, to its place.
Where that is, `buffers` says; what it is for, `engine`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learners.zero3.shards import Shards
from protocol.packed import RunningChecksum, in_groups, layout, total_bytes
from protocol.types import TensorSpec


class Deadline:
    """Of all gathers of one version together.

    Args:
        limit_s: from `begin`.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._end: float | None = None

    def begin(self) -> None:
        """Now."""
        self._end = time.monotonic() + self._limit_s

    def wait(self, work: Any) -> None:
        """Waits for a collective. Raises `TimeoutError` if a rank did not join in time."""
        if self._end is None:
            raise RuntimeError("a gather before its deadline began")
        try:
            work.wait(timedelta(seconds=max(0.001, self._end - time.monotonic())))
        except RuntimeError as error:
            if time.monotonic() < self._end:
                raise
            raise TimeoutError("a rank did not join the gather within push.deadlines.stage_s") from error


def allocate_array(nbytes: int) -> NDArray[np.uint8]:
    """Ordinary memory, for an export."""
    return np.empty(nbytes, np.uint8)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a version is packed, and how it gets there.

    Attributes:
        allocate: gives rank 0 the memory for so many bytes.
        group_bytes: of whole tensors gathered at once; `push.stage_mib`.
        deadline_s: for all of it; `push.deadlines.stage_s`.
        checksum: on rank 0 gets the bytes in their order, each group when it is in its place; None: nobody wants one.
    """

    allocate: Callable[[int], NDArray[np.uint8]] = allocate_array
    group_bytes: int = 256 << 20
    deadline_s: float = 60.0
    checksum: RunningChecksum | None = None


ORDINARY_MEMORY = Destination()


def gather_packed(
    shapes: list[tuple[str, tuple[int, ...]]],
    shards: Shards,
    dtype: str,
    destination: Destination = ORDINARY_MEMORY,
    deadline: Deadline | None = None,
) -> tuple[tuple[TensorSpec, ...], NDArray[np.uint8] | None]:
    """Collective: whole tensors, as `protocol.packed` lays them out, on rank 0.

    Args:
        shapes: names and whole shapes, in the model's order.
        shards: this rank's part of each, flat and of equal length on every rank. Each is cast before it travels.
        dtype: "float32" or "bfloat16", of the packed tensors.
        destination: see `Destination`.
        deadline: of `destination`, for shards whose reading is collective itself; it begins here.

    Returns:
        The layout and, on rank 0, the bytes.

    Raises:
        TimeoutError: a rank did not join in time.
    """
    deadline = deadline or Deadline(destination.deadline_s)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    specs = layout(shapes, dtype)
    packed = destination.allocate(total_bytes(specs)) if rank == 0 else None
    if world > 1:
        # Rank 0 may need new memory, which takes seconds for each GB: that is no time in which a rank did not join.
        torch.distributed.barrier()
    deadline.begin()
    packed_dtype = getattr(torch, dtype)
    gather = _Gather(packed_dtype, rank, world) if world > 1 else None
    for group in in_groups(specs, destination.group_bytes):
        parts = [shards[spec.name].detach() for spec in group]  # read now: some are copied as they are read
        pieces = [parts] if gather is None else gather(parts, deadline)
        if packed is None:
            continue
        for k, spec in enumerate(group):
            whole = torch.from_numpy(packed[spec.offset : spec.end]).view(packed_dtype)
            _join([piece[k] for piece in pieces], whole)
        if parts[0].is_cuda:
            torch.cuda.synchronize()  # the next group is gathered into the same memory
        if destination.checksum is not None:
            destination.checksum.add(packed[group[0].offset : group[-1].end])
    return specs, packed


def _join(parts: Sequence[torch.Tensor], whole: torch.Tensor) -> None:
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
        self._received: list[torch.Tensor] = []

    def __call__(self, parts: Sequence[torch.Tensor], deadline: Deadline) -> list[Any]:
        """For each rank its parts; empty on the other ranks."""
        lengths = [len(part) for part in parts]
        length = sum(lengths)
        if len(self._send) < length:
            self._send = torch.empty(length, dtype=self._dtype, device=parts[0].device)
            self._received = [torch.empty_like(self._send) for _ in range(self._pieces)]
        for target, part in zip(torch.split(self._send[:length], lengths), parts, strict=True):
            target.copy_(part)
        received = [piece[:length] for piece in self._received]
        work = torch.distributed.gather(self._send[:length], received or None, dst=0, async_op=True)
        deadline.wait(work)
        return [torch.split(piece, lengths) for piece in received]
