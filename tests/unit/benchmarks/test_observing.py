"""What the benchmark of watching makes of what it counted."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.observing import Games, results_of
from tests.benchmarks.processes import TreeClock

SPIN = "import time\nend = time.process_time() + .3\nwhile time.process_time() < end: pass"


def test_the_pair_of_the_median_ratio_is_what_is_held_to_the_target() -> None:
    watching, heldout = results_of([110.0, 102.0, 90.0], [100.0, 100.0, 100.0], [120.0, 111.0, 130.0])
    assert (watching.ours, watching.other) == (102.0, 100.0) and watching.ok
    assert "1.100, 1.020, 0.900" in watching.note
    assert (heldout.ours, heldout.other) == (120.0, 102.0) and heldout.target is None
    assert not results_of([110.0, 104.0, 90.0], [100.0] * 3, [1.0])[0].ok


def test_games_are_counted_as_their_lines_become_whole(tmp_path: Path) -> None:
    (tmp_path / "replay").mkdir()
    journal, games = tmp_path / "replay" / "journal.jsonl", Games(tmp_path)
    assert games.ended() == 0, "there is no journal yet"
    journal.write_text('{"e":"start"}\n{"e":"finish"}\n{"e":"fin')
    assert games.ended() == 1
    with journal.open("a") as file:
        file.write('ish"}\n{"e": "finish"}\n')
    assert games.ended() == 3


def test_what_a_process_used_stays_counted_after_its_end() -> None:
    clock, before = TreeClock(os.getpid()), TreeClock(os.getpid()).seconds()
    child = subprocess.Popen([sys.executable, "-c", SPIN + "\ntime.sleep(30)"])
    try:
        deadline = time.monotonic() + 60
        while clock.seconds() - before < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait(10)
    assert clock.seconds() - before >= 0.3


def test_a_process_that_is_gone_is_no_error() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(60)
    assert TreeClock(child.pid).seconds() == pytest.approx(0.0)
