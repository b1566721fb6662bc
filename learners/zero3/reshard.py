"""A checkpoint of another number of ranks, cut anew: fp32 masters, Adam's moments, and the moving average.

DeepSpeed loads ZeRO-3 states only as they were written, and its converter to a universal checkpoint writes all of them once more.
Here every rank reads what is its own out of the old ranks' files, mapped: each element once over all ranks, and nothing on disk.

How a parameter of `numel` elements lies on `ranks` ranks (DeepSpeed's rule, and that of our average): flat, cut into parts of
ceil(numel / ranks), the last ones padded. DeepSpeed's flat groups hold the parts of their parameters one behind the other.

It does not know whether it is needed; that is `engine`.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from protocol.errors import UserError

MASTER, MOMENTS = "fp32", ("exp_avg", "exp_avg_sq")
Piece = Callable[[int], torch.Tensor]  # by old rank: its part of a parameter, flat


def part_of(numel: int, ranks: int) -> int:
    """Elements of a parameter on each rank, padding included."""
    return math.ceil(numel / ranks)


def cut(piece: Piece, numel: int, old_ranks: int, rank: int, ranks: int) -> torch.Tensor:
    """One rank's part of a parameter that lies on `old_ranks` ranks. What is beyond its end is 0.

    Args:
        piece: gives an old rank's part; only those are asked for that hold something of it.
        numel: of the whole parameter.
        rank, ranks: whose part, of how many.
    """
    old, new = part_of(numel, old_ranks), part_of(numel, ranks)
    start, stop = rank * new, min((rank + 1) * new, numel)
    found: list[torch.Tensor] = []
    at = start
    while at < stop:
        whose = at // old
        upto = min(stop, (whose + 1) * old)
        found.append(piece(whose)[at - whose * old : upto - whose * old])
        at = upto
    have = sum(len(part) for part in found)
    padding = torch.zeros(new - have, dtype=found[0].dtype if found else torch.float32)
    return torch.cat([*found, padding])


class OldStates:
    """What DeepSpeed wrote on each rank of the old group, mapped.

    Args:
        folder: of the checkpoint's tag.
        ranks: that wrote it.

    Attributes:
        shapes: of the trained parameters, by name.
        steps: that Adam has taken.
    """

    def __init__(self, folder: Path, ranks: int) -> None:
        self._zero = [self._read(folder, rank, "optim_states")["optimizer_state_dict"] for rank in range(ranks)]
        groups: list[Mapping[str, Any]] = self._read(folder, 0, "model_states")["param_shapes"]
        self.shapes = {name: tuple(shape) for group in groups for name, shape in group.items()}
        self._places: dict[str, tuple[int, int, int]] = {}  # by name: flat group, offset in it, length
        for index, group in enumerate(groups):
            offset = 0
            for name, shape in group.items():
                length = part_of(math.prod(shape), ranks)
                self._places[name] = (index, offset, length)
                offset += length
        first = self._zero[0]["optimizer_state_dict"]["state"]
        self.steps = float(first[0]["step"]) if first else 0.0

    def piece(self, name: str, key: str) -> Piece:
        """A parameter's `fp32`, `exp_avg` or `exp_avg_sq` as it lies on the old ranks."""
        index, offset, length = self._places[name]

        def read(rank: int) -> torch.Tensor:
            zero = self._zero[rank]
            flat = (
                zero["fp32_flat_groups"][index] if key == MASTER else zero["optimizer_state_dict"]["state"][index][key]
            )
            part: torch.Tensor = flat.detach()[offset : offset + length]
            return part

        return read

    @staticmethod
    def _read(folder: Path, rank: int, kind: str) -> dict[str, Any]:
        name = f"zero_pp_rank_{rank}_mp_rank_00_{kind}.pt"
        file = next((path for path in (folder / name, folder / f"bf16_{name}") if path.is_file()), None)
        if file is None:
            raise FileNotFoundError(f"{folder / name}: DeepSpeed's states of rank {rank} are not there")
        # DeepSpeed's own objects lie in it; it is our checkpoint, found whole.
        value: dict[str, Any] = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
        return value


def load_policy(engine: Any, folder: Path, old_ranks: int, rank: int, ranks: int) -> None:
    """Collective: puts masters and moments of a checkpoint's tag into a fresh DeepSpeed engine, and what computes with them.

    Raises:
        UserError: the checkpoint is of another model.
    """
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    old = OldStates(folder, old_ranks)
    trained = {name: param for name, param in engine.module.named_parameters() if param.requires_grad}
    shapes = {name: tuple(param.ds_shape) for name, param in trained.items()}
    if shapes != old.shapes:
        other = sorted(name for name in shapes.keys() | old.shapes.keys() if shapes.get(name) != old.shapes.get(name))
        raise UserError(
            f"{folder.parent}: written by a learner of another model ({len(other)} parameters differ, as {other[0]}); give the "
            "model that the run began with, or start a new run"
        )
    engine.optimizer.checkpoint_event_prologue()  # what was gathered goes
    for flat in (
        engine.optimizer.fp32_partitioned_groups_flat
    ):  # AdamW makes its states at its first step, which a fresh one lacks
        made = {key: torch.zeros_like(flat) for key in MOMENTS}
        engine.optimizer.optimizer.state[flat] = {"step": torch.tensor(old.steps, device=flat.device)} | made
    for name, param in trained.items():

        def part(key: str, name: str = name, numel: int = param.ds_numel) -> torch.Tensor:
            return cut(old.piece(name, key), numel, old_ranks, rank, ranks)

        master = part(MASTER)
        safe_set_local_fp32_param(param, master)
        for key in MOMENTS:
            safe_set_local_optimizer_state(param, part(key), key)
        param.ds_tensor.data.copy_(master)  # rounded once to the compute dtype
    engine.optimizer.checkpoint_event_epilogue()  # what stays whole on every rank is gathered again


def load_average(
    folder: Path, numels: Mapping[str, int], old_ranks: int, rank: int, ranks: int
) -> dict[str, torch.Tensor]:
    """This rank's shards of the moving average.

    Args:
        folder: of the checkpoint.
        numels: elements of each whole parameter.
    """
    old = [
        torch.load(folder / f"rank-{r}.pt", map_location="cpu", mmap=True, weights_only=True)["ema"]
        for r in range(old_ranks)
    ]

    def piece(name: str) -> Piece:
        return lambda r: old[r][name].flatten()

    return {name: cut(piece(name), numel, old_ranks, rank, ranks) for name, numel in numels.items()}
