"""A packed weight buffer is read only when it is whole and fits its description."""

import struct
from typing import Any

import pytest

from actors.errors import WeightsRefused
from actors.weights.packed import MAPPED, Mappings, check_layout, checksum, copied, in_parts, iterate, verify
from protocol.shared import SharedBuffer, SharedFile

GOOD: dict[str, Any] = {"name": "w", "dtype": "float32", "shape": (2, 3), "offset": 0, "nbytes": 24}


def test_checksum_is_xxh3_of_128_bits() -> None:
    assert checksum(b"") == "99aa06d3014798d86001c324468d497f"  # XXH3's own test vector


def test_tensors_come_back_with_the_values_that_were_packed() -> None:
    floats = [0.5, -1.25, 3.0, 4.0, 5.0, -6.0]
    raw = struct.pack("<6f", *floats) + struct.pack("<2H", 0x3F80, 0xC000)  # bfloat16: 1.0 and -2.0
    specs = [GOOD, {"name": "b", "dtype": "bfloat16", "shape": (2,), "offset": 24, "nbytes": 4}]
    check_layout(specs, len(raw))
    owner = copied(raw, len(raw))
    buffer = SharedBuffer.open(owner.file())
    verify(buffer, len(raw), checksum(raw))
    del owner
    tensors = dict(iterate(buffer, specs))
    del buffer  # the tensors hold the memory
    assert tensors["w"].tolist() == [floats[:3], floats[3:]]
    assert str(tensors["b"].dtype) == "torch.bfloat16" and tensors["b"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nbytes": 20}, "does not fit"),
        ({"offset": 4}, "does not fit"),
        ({"offset": -4}, "does not fit"),
        ({"shape": (2, 4)}, "does not fit"),
        ({"dtype": "int8"}, "push one of float32, bfloat16, float16"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(WeightsRefused, match=said):
        check_layout([{**GOOD, **change}], 24)


def test_an_empty_manifest_is_refused() -> None:
    with pytest.raises(WeightsRefused, match="no tensor"):
        check_layout([], 0)


def test_damaged_or_missing_bytes_are_refused() -> None:
    buffer = copied(b"12345678", 8)
    with pytest.raises(WeightsRefused, match="checksum"):
        verify(buffer, 8, checksum(b"12345679"))
    with pytest.raises(WeightsRefused, match="8 bytes came, the manifest says 9"):
        verify(buffer, 9, checksum(b"12345678"))
    with pytest.raises(WeightsRefused, match="7 bytes came, the manifest says 8"):
        copied(b"1234567", 8)


def test_a_mapping_is_used_again_and_shows_what_was_written_since() -> None:
    mappings, owner = Mappings(), copied(b"old", 3)
    first = mappings.open(owner.file())
    owner.view[:] = b"new"
    assert mappings.open(owner.file()) is first and bytes(first.view) == b"new"
    with pytest.raises(TypeError, match="read-only"):
        first.view[:] = b"bad"


def test_only_the_last_mappings_are_kept() -> None:
    mappings, owners = Mappings(), [copied(b"x", 1) for _ in range(MAPPED + 1)]
    kept = [mappings.open(owner.file()) for owner in owners]
    assert mappings.open(owners[-1].file()) is kept[-1]
    assert mappings.open(owners[0].file()) is not kept[0]


def test_a_descriptor_that_means_another_file_by_now_is_refused() -> None:
    one, two = copied(b"one", 3), copied(b"two", 3)
    stale = SharedFile(two.file().path, one.inode, 3)
    with pytest.raises(FileNotFoundError, match="another file"):
        SharedBuffer.open(stale)


def test_the_parts_of_a_model_are_about_equal_whole_and_in_order() -> None:
    tensors = [{"name": str(k), "nbytes": n} for k, n in enumerate((900, 10, 10, 400, 10, 500))]
    one, other = in_parts(tensors, 2)
    assert [t["name"] for t in one] == ["0"] + [t["name"] for t in one[1:]]
    assert sorted(int(t["name"]) for t in (*one, *other)) == [0, 1, 2, 3, 4, 5]
    assert all(part == sorted(part, key=lambda t: int(t["name"])) for part in (one, other))
    assert abs(sum(t["nbytes"] for t in one) - sum(t["nbytes"] for t in other)) <= 10
    assert in_parts(tensors[:2], 4) == [[tensors[0]], [tensors[1]]]
