"""How weights lie in a packed buffer, and its checksum. No torch, no process group.

The tensors follow each other without gaps in the model's own order, all of one dtype, so every offset is a multiple of the
element size. The receiving end reads the same `TensorSpec`s.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

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


class Checksum:
    """xxh3 of packed bytes, 128 bits, taken piece by piece in a thread of its own, while the next piece is staged.

    It has to find torn, mixed up and damaged bytes, not an attacker, who could as well write the weights; at the speed of memory
    (12 GB/s a core here, blake2b 0.3), because it is taken of every byte of every push, once by each side.
    """

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checksum")
        self._taken: list[Future[None]] = []

    def add(self, piece: NDArray[np.uint8]) -> None:
        """The next bytes. They must not change before `hexdigest` has returned."""
        self._taken.append(self._thread.submit(self._hash.update, piece.data))

    def hexdigest(self) -> str:
        """Of all pieces. Waits for the thread and ends it; nothing may be added after."""
        self._thread.shutdown()
        for taken in self._taken:
            taken.result()  # raises what went wrong there
        return self._hash.hexdigest()
