"""What one card does with a 0.5B- and a 7B-shaped model: a table, and gpu.json. There are no targets; a figure must only exist."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.shapes import SHAPES
from tests.gpu.figures import MEASURES, Figure

LIMIT_S = 1500.0
GIB = 2**30
NEEDS_BYTES = {
    "0.5B": 16 * GIB,
    "7B": 60 * GIB,
}  # engine and learner side by side, their activations, logits and caches
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: its figures were not taken"),
    pytest.mark.timeout(LIMIT_S + 60),
]


def run(what: str, size: str, out: Path) -> list[Figure]:
    """One measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.figures", what, size, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return [Figure(**figure) for figure in json.loads(out.read_text())]


@pytest.fixture(scope="module")
def taken() -> Iterator[list[Figure]]:
    """Collects the figures; at the end prints the table and writes gpu.json."""
    figures: list[Figure] = []
    yield figures
    table = Table(title="one card", title_justify="left")
    for name in ("name", "ours", "other", "unit", "ratio", "card", "what"):
        table.add_column(name, justify="right" if name in ("ours", "other", "ratio") else "left")
    for f in figures:
        other, ratio = ("-", "-") if f.other is None else (f"{f.other:,.4g}", f"{f.ours / f.other:.3f}")
        table.add_row(f.name, f"{f.ours:,.4g}", other, f.unit, ratio, f.card, f.note)
    Console(width=180).print(table)
    partial = Path("gpu.json.partial")
    partial.write_text(json.dumps([vars(f) for f in figures], indent=2) + "\n")
    partial.replace("gpu.json")


@pytest.mark.parametrize("size", [size for size in SHAPES if size != "tiny"])
@pytest.mark.parametrize("what", MEASURES)
def test_figure(what: str, size: str, taken: list[Figure], tmp_path: Path) -> None:
    there = torch.cuda.get_device_properties(0).total_memory
    if there < NEEDS_BYTES[size]:
        pytest.skip(f"{size} needs {NEEDS_BYTES[size] / GIB:.0f} GiB, this card has {there / GIB:.0f}")
    figures = run(what, size, tmp_path / "figures.json")
    taken += figures
    assert figures
    assert all(math.isfinite(f.ours) and f.ours > 0 and (f.other is None or f.other > 0) for f in figures)
