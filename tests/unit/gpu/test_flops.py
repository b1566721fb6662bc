"""The arithmetic behind the GPU figures, against numbers worked out by hand and the published sizes."""

import pytest

from learners.flops import peak_of
from tests.benchmarks.shapes import SHAPES, Shape
from tests.gpu.flops import forward_flops, step_flops, trains_in_full

SMALL = Shape(vocab=10, width=4, mlp=6, layers=2, heads=2, kv_heads=1, tied=True)


def test_parameters_are_those_of_the_published_models() -> None:
    assert SHAPES["0.5B"].parameters == pytest.approx(494e6, rel=0.001)
    assert SHAPES["7B"].parameters == pytest.approx(7.616e9, rel=0.001)


def test_a_forward_pass_by_hand() -> None:
    # A layer: q and o 4x4 each, k and v 4x2 each, three 4x6 of the MLP: 32 + 16 + 72 = 120.
    assert SMALL.body == 240
    # 5 tokens, 3 of them projected: 2*240*5 + attention 2*2*4*(3*3 + 2*2) + 2*40*3.
    assert forward_flops(SMALL, [3, 2], 3) == 2400 + 208 + 240


def test_a_step_is_three_forwards_and_the_references_one_or_two_where_only_adapters_learn() -> None:
    once = forward_flops(SMALL, [4], 2)
    assert step_flops(SMALL, [4], 2, full=True) == 4 * once
    assert step_flops(SMALL, [4], 2, full=False) == 3 * once


@pytest.mark.parametrize(
    ("card", "tera"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989), ("Tesla T4", None)],
)
def test_a_cards_peak(card: str, tera: float | None) -> None:
    assert peak_of(card) == (None if tera is None else tera * 1e12)


def test_what_is_trained_is_what_fits() -> None:
    card = 80 * 2**30
    assert trains_in_full(SHAPES["0.5B"], card) is True
    assert trains_in_full(SHAPES["7B"], card) is False
    assert trains_in_full(SHAPES["7B"], 24 * 2**30) is None
