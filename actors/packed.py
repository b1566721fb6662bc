"""Reading a packed weight buffer: is it whole, does the layout fit, which bytes are which tensor.

Invariant: nothing here yields a tensor of a buffer whose checksum was not verified first (`open_verified`).
Does not know vLLM, and not how a buffer is packed (learners) or travels (update, host_transfer).
"""

import hashlib
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.errors import WeightsRefused

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # what the weights of a served model can be


def checksum(buffer: Any) -> str:
    """blake2b, 16 bytes, hex: the checksum of `WeightManifest`."""
    return hashlib.blake2b(buffer, digest_size=16).hexdigest()


def check_layout(tensors: Sequence[Mapping[str, Any]], nbytes: int) -> None:
    """Raises `WeightsRefused` unless every tensor lies inside the buffer with the bytes that its shape needs.

    Args:
        tensors: dicts with the fields of `protocol.types.TensorSpec`.
        nbytes: length of the whole buffer.
    """
    if not tensors:
        raise WeightsRefused("weights refused: the manifest names no tensor; push a whole model")
    for spec in tensors:
        name, item = spec["name"], ITEM_BYTES.get(spec["dtype"])
        if item is None:
            raise WeightsRefused(f"weights refused: {name} is {spec['dtype']}; push one of {', '.join(ITEM_BYTES)}")
        need = math.prod(spec["shape"]) * item
        if need != spec["nbytes"] or spec["offset"] < 0 or spec["offset"] + need > nbytes:
            raise WeightsRefused(
                f"weights refused: {name} at {spec['offset']} with {spec['nbytes']} bytes does not fit shape "
                f"{tuple(spec['shape'])} of {spec['dtype']} in a buffer of {nbytes}"
            )


def open_verified(path: str, nbytes: int, expected: str) -> mmap.mmap:
    """Maps the file, privately and writable (torch wants writable memory), after its length and checksum were verified.

    Raises:
        WeightsRefused: it is not the file that was announced.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        if size != nbytes:
            raise WeightsRefused(f"weights refused: the file has {size} bytes, the manifest says {nbytes}")
        buffer = mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_COPY)
    found = checksum(buffer)
    if found != expected:
        raise WeightsRefused(f"weights refused: checksum {found}, the manifest says {expected}; push the version again")
    return buffer


def iterate(buffer: mmap.mmap, tensors: Sequence[Mapping[str, Any]]) -> "Iterator[tuple[str, torch.Tensor]]":
    """(name, tensor) without a copy. The tensors keep the mapping alive; the file may be gone."""
    import torch

    for spec in tensors:
        flat = torch.frombuffer(
            buffer, dtype=getattr(torch, spec["dtype"]), count=math.prod(spec["shape"]), offset=spec["offset"]
        )
        yield spec["name"], flat.view(tuple(spec["shape"]))
