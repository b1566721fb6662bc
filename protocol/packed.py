"""How the weights of a version lie in one buffer, and their checksum: the one definition for the learner, which packs them, and the
generation workers, which check and read them. No torch, no process group, no file.

The tensors follow each other without gaps in the model's own order, all of one dtype, so every offset is a multiple of the
element size.
"""

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from protocol.types import TensorSpec

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # what weights can be, by torch's name without the prefix


def layout(shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: str) -> tuple[TensorSpec, ...]:
    """Places tensors one behind the other.

    Raises:
        ValueError: `dtype` is none of `ITEM_BYTES`.
    """
    specs, offset = [], 0
    for name, shape in shapes:
        nbytes = _nbytes(name, dtype, shape)
        specs.append(TensorSpec(name, dtype, tuple(shape), offset, nbytes))
        offset += nbytes
    return tuple(specs)


def _nbytes(name: str, dtype: str, shape: Sequence[int]) -> int:
    if dtype not in ITEM_BYTES:
        raise ValueError(f"{name} is {dtype}; weights are one of {', '.join(ITEM_BYTES)}")
    return math.prod(shape) * ITEM_BYTES[dtype]


def check_layout(specs: Sequence[TensorSpec], nbytes: int) -> None:
    """Checks a layout that came from elsewhere, for a buffer of `nbytes`.

    Raises:
        ValueError: there is no tensor, or one does not lie inside the buffer with the bytes that its shape needs.
    """
    if not specs:
        raise ValueError("the manifest names no tensor; push a whole model")
    for spec in specs:
        need = _nbytes(spec.name, spec.dtype, spec.shape)
        if need != spec.nbytes or spec.offset < 0 or spec.end > nbytes:
            raise ValueError(
                f"{spec.name} at {spec.offset} with {spec.nbytes} bytes does not fit shape {tuple(spec.shape)} of {spec.dtype} "
                f"in a buffer of {nbytes}"
            )


def total_bytes(specs: Sequence[TensorSpec]) -> int:
    """Length of the packed buffer."""
    return sum(spec.nbytes for spec in specs)


def in_groups(specs: Sequence[TensorSpec], limit_bytes: int) -> list[tuple[TensorSpec, ...]]:
    """Consecutive tensors, in groups of at most `limit_bytes`; a larger tensor is alone in its group."""
    groups: list[list[TensorSpec]] = []
    filled = 0
    for spec in specs:
        if not groups or filled + spec.nbytes > limit_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(spec)
        filled += spec.nbytes
    return [tuple(group) for group in groups]


def tensor_at(whole: Any, spec: TensorSpec, dtype: Any) -> Any:
    """The tensor of that place, without a copy.

    Args:
        whole: the packed bytes as a flat torch tensor of uint8.
        spec: the place.
        dtype: torch's dtype of the name `spec.dtype`; given, because nothing here imports torch.
    """
    return whole[spec.offset : spec.end].view(dtype).view(spec.shape)


def checksum(packed: Any) -> str:
    """The checksum of `WeightManifest` over whole bytes (bytes-like): xxh3, 128 bits, hex.

    It has to find torn, mixed up and damaged bytes, not an attacker, who could as well write the weights; at the speed of memory
    (12 GB/s a core here, blake2b 0.3), because it is taken of every byte of every push, once by each side.
    """
    return xxhash.xxh3_128_hexdigest(packed)


def file_checksum(path: Path, chunk: int = 16 << 20) -> str:
    """`checksum` of a file's bytes, `chunk` of them in memory at a time. Raises `OSError`."""
    hashed, buffer = xxhash.xxh3_128(), bytearray(chunk)
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(buffer):
            hashed.update(memoryview(buffer)[:n])
    return hashed.hexdigest()


class RunningChecksum:
    """`checksum`, taken piece by piece in a thread of its own, while the next piece is staged."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checksum")
        self._pieces: list[Future[None]] = []

    def add(self, piece: NDArray[np.uint8]) -> None:
        """The next bytes. They must not change before `hexdigest` has returned."""
        self._pieces.append(self._thread.submit(self._hash.update, piece.data))

    def hexdigest(self) -> str:
        """Of all pieces. Waits for the thread and ends it; nothing may be added after."""
        self._thread.shutdown()
        for piece in self._pieces:
            piece.result()  # raises what went wrong there
        return self._hash.hexdigest()
