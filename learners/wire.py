"""How weights lie in a packed buffer, and its checksum. Pure: no torch, no process group.

The tensors follow each other without gaps in the model's own order, all of one dtype, so every offset is a multiple of the
element size. The receiving end reads the same `TensorSpec`s.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from protocol.types import TensorSpec

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2}


def layout(shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: str) -> tuple[TensorSpec, ...]:
    """Places tensors one behind the other.

    Raises:
        ValueError: `dtype` is not one that travels.
    """
    if dtype not in ELEMENT_BYTES:
        raise ValueError(f"wire dtype {dtype!r} is none of {', '.join(ELEMENT_BYTES)}")
    specs, offset = [], 0
    for name, shape in shapes:
        nbytes = int(np.prod(shape, dtype=np.int64)) * ELEMENT_BYTES[dtype]
        specs.append(TensorSpec(name, dtype, tuple(shape), offset, nbytes))
        offset += nbytes
    return tuple(specs)


def total_bytes(specs: Sequence[TensorSpec]) -> int:
    """Length of the packed buffer."""
    return sum(spec.nbytes for spec in specs)


def in_groups(specs: Sequence[TensorSpec], limit_bytes: int) -> list[list[int]]:
    """Indices of consecutive tensors, in groups of at most `limit_bytes`; a larger tensor is alone in its group."""
    groups: list[list[int]] = []
    filled = 0
    for index, spec in enumerate(specs):
        if not groups or filled + spec.nbytes > limit_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += spec.nbytes
    return groups


def checksum(packed: NDArray[np.uint8]) -> str:
    """xxh3 of the packed bytes, 128 bits, hex.

    It has to find torn, mixed up and damaged bytes, not an attacker, who could as well write the weights; at the speed of memory
    (12 GB/s a core here, blake2b 0.3), because it is taken of every byte of every push, once by each side.
    """
    return xxhash.xxh3_128_hexdigest(packed.data)
