"""Reading a packed weight buffer: is it whole, does the layout fit, which bytes are which tensor.

Does not know vLLM, nor how a buffer is packed (learners) or travels (update, host_transfer).
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xxhash

from actors.errors import WeightsRefused
from protocol.shared import SharedBuffer, SharedFile

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # what the weights of a served model can be
MAPPED = 3  # two that the learner uses in turn, and one more where a worker was slow


def checksum(buffer: Any) -> str:
    """xxh3, 128 bits, hex: the checksum of `WeightManifest`."""
    return xxhash.xxh3_128_hexdigest(buffer)


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


def verify(buffer: SharedBuffer, nbytes: int, expected: str) -> None:
    """Reads all of it.

    Raises:
        WeightsRefused: these are not the bytes that were announced.
    """
    if buffer.nbytes != nbytes:
        raise WeightsRefused(f"weights refused: {buffer.nbytes} bytes came, the manifest says {nbytes}")
    found = checksum(buffer.view)
    if found != expected:
        raise WeightsRefused(f"weights refused: checksum {found}, the manifest says {expected}; push the version again")


def copied(source: Any, nbytes: int) -> SharedBuffer:
    """Memory of our own with the bytes of `source` (bytes-like), which may change or go afterwards.

    Raises:
        WeightsRefused: there are more or fewer than `nbytes`.
    """
    view = memoryview(source).cast("B")
    if view.nbytes != nbytes:
        raise WeightsRefused(f"weights refused: {view.nbytes} bytes came, the manifest says {nbytes}")
    buffer = SharedBuffer.create(nbytes)
    buffer.view[:] = view
    return buffer


class Mappings:
    """The shared buffers that this process has mapped, the last few: a learner uses the same ones again and again.

    A mapping costs a page fault for every 4 KiB, which is more than the copy that it is made for.
    """

    def __init__(self) -> None:
        self._mapped: dict[int, SharedBuffer] = {}

    def open(self, file: SharedFile) -> SharedBuffer:
        """The buffer behind `file`. Raises `FileNotFoundError` where it is gone."""
        buffer = self._mapped.pop(file.inode, None) or SharedBuffer.open(file)
        self._mapped[file.inode] = buffer  # the one used last is the last to go
        while len(self._mapped) > MAPPED:
            del self._mapped[next(iter(self._mapped))]
        return buffer


def in_parts(tensors: Sequence[Mapping[str, Any]], parts: int) -> list[list[Mapping[str, Any]]]:
    """The tensors in so many lists of about as many bytes each, each in the order that they came in; none is empty."""
    room = [0] * parts
    part_of: dict[int, int] = {}
    for k in sorted(range(len(tensors)), key=lambda k: -tensors[k]["nbytes"]):
        part_of[k] = room.index(min(room))
        room[part_of[k]] += tensors[k]["nbytes"]
    found = [[spec for k, spec in enumerate(tensors) if part_of[k] == part] for part in range(parts)]
    return [part for part in found if part]


def iterate(buffer: SharedBuffer, tensors: Sequence[Mapping[str, Any]]) -> "Iterator[tuple[str, torch.Tensor]]":
    """(name, tensor) without a copy. The tensors keep the mapping alive, and must not be written."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        whole = torch.frombuffer(buffer.view, dtype=torch.uint8)
    for spec in tensors:
        flat = whole[spec["offset"] : spec["offset"] + spec["nbytes"]].view(getattr(torch, spec["dtype"]))
        yield spec["name"], flat.view(tuple(spec["shape"]))
