"""A packed weight buffer is read only when it is whole and fits its description."""

import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest

from actors.errors import WeightsRefused
from actors.packed import check_layout, checksum, iterate, open_verified

GOOD: dict[str, Any] = {"name": "w", "dtype": "float32", "shape": (2, 3), "offset": 0, "nbytes": 24}


def test_checksum_is_blake2b_of_16_bytes() -> None:
    assert checksum(b"abc") == hashlib.blake2b(b"abc", digest_size=16).hexdigest()


def test_tensors_come_back_with_the_values_that_were_packed(tmp_path: Path) -> None:
    floats = [0.5, -1.25, 3.0, 4.0, 5.0, -6.0]
    raw = struct.pack("<6f", *floats) + struct.pack("<2H", 0x3F80, 0xC000)  # bfloat16: 1.0 and -2.0
    (tmp_path / "w").write_bytes(raw)
    specs = [GOOD, {"name": "b", "dtype": "bfloat16", "shape": (2,), "offset": 24, "nbytes": 4}]
    check_layout(specs, len(raw))
    buffer = open_verified(str(tmp_path / "w"), len(raw), checksum(raw))
    (tmp_path / "w").unlink()  # the mapping outlives the file
    tensors = dict(iterate(buffer, specs))
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


def test_a_damaged_or_short_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"12345678")
    with pytest.raises(WeightsRefused, match="checksum"):
        open_verified(str(tmp_path / "w"), 8, checksum(b"12345679"))
    with pytest.raises(WeightsRefused, match="8 bytes, the manifest says 9"):
        open_verified(str(tmp_path / "w"), 9, checksum(b"12345678"))
