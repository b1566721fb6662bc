"""The layout and the checksum of a packed version, against places and bytes that are computed here by hand."""

import struct

import numpy as np
import pytest

from protocol.packed import RunningChecksum, check_layout, checksum, in_groups, layout, tensor_at, total_bytes
from protocol.types import TensorSpec

GOOD = TensorSpec("w", "float32", (2, 3), 0, 24)
XXH3_OF_NOTHING = "99aa06d3014798d86001c324468d497f"  # XXH3's own test vector, 128 bits


@pytest.mark.parametrize(
    ("dtype", "places"),
    [
        ("bfloat16", [("a", 0, 12), ("b", 12, 10), ("c", 22, 2)]),
        ("float16", [("a", 0, 12), ("b", 12, 10), ("c", 22, 2)]),
        ("float32", [("a", 0, 24), ("b", 24, 20), ("c", 44, 4)]),
    ],
)
def test_tensors_lie_one_behind_the_other(dtype: str, places: list[tuple[str, int, int]]) -> None:
    specs = layout([("a", (2, 3)), ("b", (5,)), ("c", ())], dtype)
    assert [(s.name, s.offset, s.nbytes) for s in specs] == places
    assert total_bytes(specs) == specs[-1].end == places[-1][1] + places[-1][2]
    check_layout(specs, total_bytes(specs))


def test_groups_are_consecutive_and_a_large_tensor_is_alone() -> None:
    a, b, c = specs = layout([("a", (2, 3)), ("b", (5,)), ("c", ())], "bfloat16")
    assert in_groups(specs, 12) == [(a,), (b, c)]
    assert in_groups(specs, 1) == [(a,), (b,), (c,)]


def test_the_numbers_lie_in_rows_and_little_endian() -> None:
    torch = pytest.importorskip("torch")
    raw = struct.pack("<6f", *range(6)) + struct.pack("<3f", 0.5, -1.0, 8.0)
    whole = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    one, other = (tensor_at(whole, s, torch.float32) for s in layout([("a", (2, 3)), ("b", (3,))], "float32"))
    assert one.tolist() == [[0, 1, 2], [3, 4, 5]] and other.tolist() == [0.5, -1.0, 8.0]
    one[0, 0] = 7.0
    assert struct.unpack("<f", bytes(whole[:4].tolist())) == (7.0,), "not a copy"


def test_a_dtype_that_weights_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="a is auto; weights are one of float32, bfloat16, float16"):
        layout([("a", (1,))], "auto")


@pytest.mark.parametrize(
    "wrong",
    [
        TensorSpec("w", "float32", (2, 3), 0, 20),
        TensorSpec("w", "float32", (2, 3), 4, 24),
        TensorSpec("w", "float32", (2, 3), -4, 24),
        TensorSpec("w", "float32", (2, 4), 0, 24),
        TensorSpec("w", "bfloat16", (2, 3), 0, 24),
    ],
)
def test_a_layout_that_does_not_fit_its_buffer_is_refused(wrong: TensorSpec) -> None:
    check_layout([GOOD], 24)
    with pytest.raises(ValueError, match="does not fit"):
        check_layout([GOOD, wrong], 24)


def test_a_layout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no tensor"):
        check_layout([], 0)


def in_pieces(*pieces: np.ndarray) -> str:
    running = RunningChecksum()
    for piece in pieces:
        running.add(piece)
    return running.hexdigest()


def test_the_checksum_finds_a_single_bit_and_does_not_see_the_pieces() -> None:
    assert checksum(b"") == in_pieces() == XXH3_OF_NOTHING
    packed = np.arange(100, dtype=np.uint8)
    right = checksum(packed)
    assert in_pieces(packed) == in_pieces(packed[:7], packed[7:], packed[:0]) == right
    packed[50] ^= 1
    assert checksum(packed) != right and in_pieces(packed) != right
