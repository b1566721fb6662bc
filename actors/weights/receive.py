"""Taking a packed version in: is it whole, where is it mapped, and its tensors without a copy.

The layout and the checksum are defined in `protocol.packed`. Does not know vLLM, nor how a buffer is packed (learners) or travels
(`update`, `host_transfer`).
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from actors.errors import DigestMismatch, WeightsRefused
from protocol import packed
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import TensorSpec, WeightManifest

if TYPE_CHECKING:
    import torch

REFUSED = "weights refused:"  # vLLM hands an error over as text, so this marks the harmless kind
KEPT_MAPPINGS = 3  # two that the learner uses in turn, and one more where a worker was slow


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
        while len(self._mapped) > KEPT_MAPPINGS:
            del self._mapped[next(iter(self._mapped))]
        return buffer


def receive(manifest: WeightManifest, source: Any, mappings: Mappings) -> SharedBuffer:
    """The bytes of a push, on this node, verified. Blocks for as long as it takes to read them, or to copy and read them.

    Args:
        source: a `SharedFile` of this node, which its owner leaves alone until we answer, or anything bytes-like.

    Raises:
        WeightsRefused: they are not what the manifest says.
        FileNotFoundError: the file is gone.
    """
    check_layout(manifest.tensors, manifest.nbytes)
    buffer = mappings.open(source) if isinstance(source, SharedFile) else copy_to_shared(source, manifest.nbytes)
    verify(buffer, manifest.nbytes, manifest.checksum)
    return buffer


def check_layout(tensors: Sequence[TensorSpec], nbytes: int) -> None:
    """`protocol.packed.check_layout`. Raises `WeightsRefused`."""
    try:
        packed.check_layout(tensors, nbytes)
    except ValueError as error:
        raise WeightsRefused(f"{REFUSED} {error}") from None


def verify(buffer: SharedBuffer, nbytes: int, expected: str) -> None:
    """Reads all of it.

    Raises:
        DigestMismatch: these are not the bytes that were announced.
    """
    _check_length(buffer.nbytes, nbytes)
    found = packed.checksum(buffer.view)
    if found != expected:
        raise DigestMismatch(f"{REFUSED} checksum {found}, the manifest says {expected}; push the version again")


def copy_to_shared(source: Any, nbytes: int) -> SharedBuffer:
    """Memory of our own with the bytes of `source` (bytes-like), which may change or go afterwards.

    Raises:
        WeightsRefused: there are more or fewer than `nbytes`.
    """
    view = memoryview(source).cast("B")
    _check_length(view.nbytes, nbytes)
    buffer = SharedBuffer.create(nbytes)
    buffer.view[:] = view
    return buffer


def _check_length(found: int, expected: int) -> None:
    if found != expected:
        raise WeightsRefused(f"{REFUSED} {found} bytes came, the manifest says {expected}")


def split_evenly(tensors: Sequence[TensorSpec], parts: int) -> list[list[TensorSpec]]:
    """The tensors in so many lists of about as many bytes each, each in the order that they came in; none is empty."""
    filled = [0] * parts
    part_of: dict[int, int] = {}
    for k in sorted(range(len(tensors)), key=lambda k: -tensors[k].nbytes):
        part_of[k] = filled.index(min(filled))
        filled[part_of[k]] += tensors[k].nbytes
    lists = [[spec for k, spec in enumerate(tensors) if part_of[k] == part] for part in range(parts)]
    return [part for part in lists if part]


def read_tensors(buffer: SharedBuffer, tensors: Sequence[TensorSpec]) -> "Iterator[tuple[str, torch.Tensor]]":
    """(name, tensor) without a copy. The tensors keep the mapping alive, and must not be written."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        whole = torch.frombuffer(buffer.view, dtype=torch.uint8)
    for spec in tensors:
        yield spec.name, packed.tensor_at(whole, spec, getattr(torch, spec.dtype))
