"""A packed weight buffer is read only when it is whole and fits its description."""

import struct

import pytest

from actors.errors import WeightsRefused
from actors.weights.receive import (
    KEPT_MAPPINGS,
    Mappings,
    check_layout,
    copy_to_shared,
    read_tensors,
    receive,
    split_evenly,
    verify,
)
from protocol.packed import checksum
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import TensorSpec, WeightManifest


def test_tensors_come_back_with_the_values_that_were_packed() -> None:
    floats = [0.5, -1.25, 3.0, 4.0, 5.0, -6.0]
    raw = struct.pack("<6f", *floats) + struct.pack("<2H", 0x3F80, 0xC000)  # bfloat16: 1.0 and -2.0
    specs = (TensorSpec("w", "float32", (2, 3), 0, 24), TensorSpec("b", "bfloat16", (2,), 24, 4))
    owner = receive(WeightManifest("attacker", 1, specs, len(raw), checksum(raw)), raw, Mappings())
    buffer = SharedBuffer.open(owner.file())
    del owner
    tensors = dict(read_tensors(buffer, specs))
    del buffer  # the tensors hold the memory
    assert tensors["w"].tolist() == [floats[:3], floats[3:]]
    assert str(tensors["b"].dtype) == "torch.bfloat16" and tensors["b"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (TensorSpec("w", "float32", (2, 4), 0, 24), "weights refused: w at 0 with 24 bytes does not fit shape"),
        (TensorSpec("w", "int8", (24,), 0, 24), "weights refused: w is int8; weights are one of float32, bfloat16"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(spec: TensorSpec, said: str) -> None:
    with pytest.raises(WeightsRefused, match=said):
        check_layout([spec], 24)


def test_damaged_or_missing_bytes_are_refused() -> None:
    buffer = copy_to_shared(b"12345678", 8)
    with pytest.raises(WeightsRefused, match="checksum"):
        verify(buffer, 8, checksum(b"12345679"))
    with pytest.raises(WeightsRefused, match="8 bytes came, the manifest says 9"):
        verify(buffer, 9, checksum(b"12345678"))
    with pytest.raises(WeightsRefused, match="7 bytes came, the manifest says 8"):
        copy_to_shared(b"1234567", 8)


def test_a_mapping_is_used_again_and_shows_what_was_written_since() -> None:
    mappings, owner = Mappings(), copy_to_shared(b"old", 3)
    first = mappings.open(owner.file())
    owner.view[:] = b"new"
    assert mappings.open(owner.file()) is first and bytes(first.view) == b"new"
    with pytest.raises(TypeError, match="read-only"):
        first.view[:] = b"bad"


def test_only_the_last_mappings_are_kept() -> None:
    mappings, owners = Mappings(), [copy_to_shared(b"x", 1) for _ in range(KEPT_MAPPINGS + 1)]
    kept = [mappings.open(owner.file()) for owner in owners]
    assert mappings.open(owners[-1].file()) is kept[-1]
    assert mappings.open(owners[0].file()) is not kept[0]


def test_a_descriptor_that_means_another_file_by_now_is_refused() -> None:
    one, two = copy_to_shared(b"one", 3), copy_to_shared(b"two", 3)
    stale = SharedFile(two.file().path, one.inode, 3)
    with pytest.raises(FileNotFoundError, match="another file"):
        SharedBuffer.open(stale)


def test_the_parts_of_a_model_are_about_equal_whole_and_in_order() -> None:
    tensors = [TensorSpec(str(k), "float32", (n // 4,), 0, n) for k, n in enumerate((900, 12, 12, 400, 12, 500))]
    one, other = split_evenly(tensors, 2)
    assert [t.name for t in one] == ["0"] + [t.name for t in one[1:]]
    assert sorted(int(t.name) for t in (*one, *other)) == [0, 1, 2, 3, 4, 5]
    assert all(part == sorted(part, key=lambda t: int(t.name)) for part in (one, other))
    assert abs(sum(t.nbytes for t in one) - sum(t.nbytes for t in other)) <= 12
    assert split_evenly(tensors[:2], 4) == [[tensors[0]], [tensors[1]]]
