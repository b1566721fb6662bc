"""A curve of shares as a line of characters. Pure.

The scale is fixed, 0 at the bottom and 1 at the top, so that two curves side by side compare and noise is not blown up.
"""

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"  # not measured


def draw_sparkline(values: Sequence[float | None], width: int) -> str:
    """The newest `width` of `values`, one character each, the newest last.

    Args:
        values: 0 to 1, and drawn as the nearer of the two where they are outside; None and NaN are gaps.
        width: characters, at least 1.
    """
    return "".join(_bar(value) for value in values[-width:])


def _bar(value: float | None) -> str:
    if value is None or math.isnan(value):
        return GAP
    return BARS[min(len(BARS) - 1, int(max(0.0, min(1.0, value)) * len(BARS)))]
