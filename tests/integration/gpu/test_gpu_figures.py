"""The GPU figures' code, on the CPU with a tiny shape: that it measures something is all that can be said without a card."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("generation", ["generation-tiny"]),
        ("learner", ["learner-tiny"]),
        ("push-host", ["push-host-tiny", "stall-host-tiny"]),
    ],
)
def test_a_figure_is_taken(what: str, names: list[str], tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.figures", what, "tiny", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    figures = json.loads(out.read_text())
    assert [figure["name"] for figure in figures] == names
    assert all(figure["ours"] > 0 for figure in figures)
    if what == "learner":
        assert figures[0]["other"] is None and "no MFU" in figures[0]["note"]
    else:
        assert all(figure["other"] > 0 for figure in figures)
