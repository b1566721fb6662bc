"""Digests of parameters where they lie: sums against a computation in Python's own integers, and what changes them."""

import pytest
import torch

from actors.weights.digests import digests, sums

MASK = (1 << 64) - 1


def sums_by_hand(data: bytes) -> list[int]:
    """As the docstring defines them, word by word, with integers of any length."""
    data += bytes(-len(data) % 8)
    totals = [0, 0]
    for at in range(len(data) // 8):
        word = int.from_bytes(data[8 * at : 8 * at + 8], "little")
        for k, step in enumerate((0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)):
            mixed = (at + 1) * step & MASK
            mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & MASK
            mixed = (mixed ^ mixed >> 27) | 1
            totals[k] = (totals[k] + word * mixed) & MASK
    return totals


def unsigned(found: torch.Tensor) -> list[int]:
    return [int(value) & MASK for value in found]


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("shape", [(64,), (7, 9), (1,), (0,)])
def test_sums_are_what_they_are_defined_to_be(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 50).to(dtype)
    assert unsigned(sums(tensor)) == sums_by_hand(bytes_of(tensor))


def test_sums_do_not_depend_on_blocks_or_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(33, 16, generator=torch.Generator().manual_seed(2))
    whole = unsigned(sums(tensor))
    monkeypatch.setattr("actors.weights.digests.BLOCK", 7)
    assert unsigned(sums(tensor)) == whole
    assert unsigned(sums(tensor.t())) == sums_by_hand(bytes_of(tensor.t()))
    assert unsigned(sums(tensor.flatten()[1:])) == sums_by_hand(bytes_of(tensor.flatten()[1:])), "begins within a word"


def test_a_bit_or_an_exchange_changes_both_sums() -> None:
    tensor = torch.arange(64, dtype=torch.int64)
    before = unsigned(sums(tensor))
    for at, bit in ((0, 0), (63, 0), (17, 62)):
        other = tensor.clone()
        other[at] ^= 1 << bit
        assert all(a != b for a, b in zip(before, unsigned(sums(other)), strict=True))
    exchanged = tensor.clone()
    exchanged[[3, 40]] = tensor[[40, 3]]
    assert all(a != b for a, b in zip(before, unsigned(sums(exchanged)), strict=True))


def test_on_a_cpu_each_parameter_has_its_checksum() -> None:
    from protocol.packed import checksum

    named = {name: torch.randn(5, 3) for name in ("a", "b", "c")}
    assert digests(named.items()) == {name: checksum(bytes_of(tensor)) for name, tensor in named.items()}
