"""A curve in characters: always the same scale, gaps where nothing was measured, the newest last."""

import math

import pytest

from cluster.observe.sparkline import draw_sparkline


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 9, ""),
        ([0.0, 0.5, 1.0], 9, "▁▅█"),
        ([0.01, 0.02], 9, "▁▁"),  # noise is not blown up to the height of the line
        ([k / 8 for k in range(8)], 9, "▁▂▃▄▅▆▇█"),
        ([0.0, None, math.nan, 1.0], 9, "▁··█"),
        ([-2.0, 7.0], 9, "▁█"),
        ([0.0, 0.0, 1.0, 0.5], 2, "█▅"),
    ],
)
def test_a_curve_in_characters(values: list[float | None], width: int, drawn: str) -> None:
    assert draw_sparkline(values, width) == drawn
