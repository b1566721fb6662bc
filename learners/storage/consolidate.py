"""A Hugging Face folder of a checkpoint, made in one process: the shards of all ranks joined, without a learner group.

What a checkpoint's sampler was is what the folder holds, as in an export: the moving average (from the ranks' own files), or the
policy (by DeepSpeed's converter), its adapters merged. All of it passes through host memory, in float32.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learners.storage.export import write_folder
from protocol.errors import UserError
from protocol.packed import layout, tensor_at, total_bytes

_POLICY_TAG = "policy"  # as `zero3.engine` saves it


def consolidate(checkpoint: Path, base: Path, target: Path, dtype: str, sampler: str) -> None:
    """Writes `target`, replacing an earlier folder of that name.

    Args:
        checkpoint: a `step-N` folder.
        base: the model that training started from.
        dtype: "float32" or "bfloat16", of the weights.
        sampler: "ema" or "policy", the run's `learners.PLAYER.sampler`.

    Raises:
        UserError: the checkpoint lacks a file, or is not of a model such as `base`.
    """
    import numpy as np
    import torch

    meta = json.loads((checkpoint / "checkpoint.json").read_text(encoding="utf-8"))
    try:
        trained = _read_average(checkpoint, meta["world_size"]) if sampler == "ema" else _read_policy(checkpoint)
        whole = _merge(base, trained, meta["lora"]) if meta.get("lora") else _reshape(base, trained)
    except (OSError, KeyError, RuntimeError, ValueError) as e:
        raise UserError(
            f"{checkpoint} cannot be read as a checkpoint of a model such as {base} ({type(e).__name__}); leave it out, or put "
            "its files back"
        ) from e
    specs = layout([(name, tuple(tensor.shape)) for name, tensor in whole.items()], dtype)
    packed = np.empty(total_bytes(specs), dtype=np.uint8)
    view = torch.from_numpy(packed)
    for spec in specs:
        tensor_at(view, spec, getattr(torch, dtype)).copy_(whole[spec.name])
    write_folder(base, target, specs, packed)


def _read_average(checkpoint: Path, ranks: int) -> dict[str, Any]:
    """By name the average's parameters, flat, with the last rank's padding."""
    import torch

    shards = [torch.load(checkpoint / f"rank-{rank}.pt", weights_only=True, mmap=True)["ema"] for rank in range(ranks)]
    if not shards[0]:
        raise ValueError("no average")
    return {name: torch.cat([mine[name].flatten() for mine in shards]) for name in shards[0]}


def _read_policy(checkpoint: Path) -> dict[str, Any]:
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    found: dict[str, Any] = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), tag=_POLICY_TAG)
    return {name: tensor.flatten() for name, tensor in found.items()}


def _reshape(base: Path, flat: Mapping[str, Any]) -> dict[str, Any]:
    """The trained parameters in the model's shapes and order."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, local_files_only=True))
    return {name: _cut(flat[name], tuple(param.shape)) for name, param in model.named_parameters()}


def _merge(base: Path, adapters: Mapping[str, Any], lora: Mapping[str, Any]) -> dict[str, Any]:
    """The base's parameters, with W + (alpha / rank) B A in the adapted layers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    whole = {name: param.detach() for name, param in model.named_parameters()}
    rank, scale = lora["rank"], lora["alpha"] / lora["rank"]
    for name in adapters:
        path, _, part = name.partition(".policy.")
        if part != "a.weight":
            continue
        outer, inner = whole[f"{path}.weight"].shape
        a_RI = _cut(adapters[name], (rank, inner))
        b_OR = _cut(adapters[f"{path}.policy.b.weight"], (outer, rank))
        whole[f"{path}.weight"] = whole[f"{path}.weight"] + scale * (b_OR @ a_RI)
    return whole


def _cut(flat: Any, shape: tuple[int, ...]) -> Any:
    """Without the padding. Raises `RuntimeError` if there are fewer numbers than the shape takes."""
    import math

    return flat[: math.prod(shape)].float().view(shape)
