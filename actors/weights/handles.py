"""vLLM's update infos as plain values, so that they travel through Ray and vLLM's own calls without a pickle of ours.

Those of `nccl` are plain already. Those of `ipc` have, for each tensor and each GPU's UUID, the arguments that torch's
`rebuild_cuda_tensor` takes: among numbers and bytes two classes and a dtype, which go by their names here.
"""

from collections.abc import Mapping
from typing import Any

HANDLES = "ipc_handles"
_CLASS, _SIZE, _STRIDE, _STORAGE, _DTYPE = 0, 1, 2, 4, 5  # places among the arguments
_STORAGES = ("TypedStorage", "UntypedStorage")


def to_plain(update_info: Mapping[str, Any]) -> dict[str, Any]:
    """The info with every handle as a list of numbers, bytes and names."""
    plain = dict(update_info)
    if plain.get(HANDLES) is not None:
        plain[HANDLES] = [{gpu: _flatten(args) for gpu, args in handle.items()} for handle in plain[HANDLES]]
    return plain


def from_plain(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse.

    Raises:
        ValueError: a name that no tensor has.
    """
    info = dict(plain)
    if info.get(HANDLES) is not None:
        info[HANDLES] = [{gpu: _rebuild(args) for gpu, args in handle.items()} for handle in info[HANDLES]]
    return info


def _flatten(args: tuple[Any, ...]) -> list[Any]:
    flat = list(args)
    flat[_CLASS], flat[_STORAGE] = "Tensor", flat[_STORAGE].__name__  # a parameter is rebuilt as a tensor
    flat[_SIZE], flat[_STRIDE] = list(flat[_SIZE]), list(flat[_STRIDE])
    flat[_DTYPE] = str(flat[_DTYPE]).removeprefix("torch.")
    return flat


def _rebuild(flat: list[Any]) -> tuple[Any, ...]:
    import torch

    args = list(flat)
    storage, dtype = args[_STORAGE], getattr(torch, args[_DTYPE], None)
    if storage not in _STORAGES or not isinstance(dtype, torch.dtype):
        raise ValueError(f"no tensor has a {storage} of {args[_DTYPE]}")
    args[_CLASS], args[_STORAGE], args[_DTYPE] = torch.Tensor, getattr(torch.storage, storage), dtype
    args[_SIZE], args[_STRIDE] = torch.Size(args[_SIZE]), tuple(args[_STRIDE])
    return tuple(args)
