"""Runs of the real program for end-to-end tests: started as a user would, watched from outside, checked for what they leave."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from tests.paths import ROOT

Step = tuple[str, int]  # a player, and the number of an optimizer step, from 0
SMALL = {  # a short run of the sandbox, the same parts as the demo
    "run.steps": 8,
    "learners.attacker.batch_games": 12,
    "learners.defender.batch_games": 12,
    "learners.attacker.checkpoint_every": 3,
    "learners.defender.checkpoint_every": 3,
    "game.in_flight": 24,
}


class Program:
    """`python -m cluster ARGS` in a process of its own. Every process it causes inherits a mark in its environment."""

    def __init__(self, *args: str, env: dict[str, str] | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "cluster", *args],
            cwd=ROOT,
            env={**os.environ, **(env or {}), "ADVGAME_TEST_MARK": self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, limit_s: float) -> re.Match[str]:
        """The first match in the output; fails if the program ends or the time is up before it."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            found = re.search(pattern, self.output)
            if found:
                return found
            assert self.process.poll() is None, f"ended early:\n{self.output}"
            time.sleep(0.2)
        raise AssertionError(f"no {pattern!r} within {limit_s} s:\n{self.output}")

    def end(self, limit_s: float) -> int:
        """Its exit status."""
        code = self.process.wait(limit_s)
        self._reader.join(10)
        return code

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def processes(self) -> list[psutil.Process]:
        """Every living process that carries the mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("ADVGAME_TEST_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def clean_up(self) -> None:
        """For the end of a test that failed: leaves nothing running."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def settings(run_dir: Path, name: str, **more: Any) -> list[str]:
    """`--set` arguments for a small run."""
    values = {**SMALL, "run.dir": run_dir, "run.name": name, **more}
    return [f"--set={key}={value}" for key, value in values.items()]


def summary_of(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return value


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Every replay row that the run stored, of both players, in the order of its segments."""
    segments = sorted((run / "replay").glob("*.arrow"))
    return [row for segment in segments for row in pa.ipc.open_stream(segment).read_all().to_pylist()]


def events(run: Path, *kinds: str) -> list[dict[str, Any]]:
    """The replay journal's events of these kinds so far."""
    journal = run / "replay" / "journal.jsonl"
    text = journal.read_text() if journal.is_file() else ""
    whole = text.split("\n")[:-1]  # the line that is being written has no end yet
    return [e for e in map(json.loads, whole) if e["e"] in kinds]


def leases(run: Path) -> list[tuple[Step, list[int]]]:
    """Every lease so far, with its games, in order; a step may have had several."""
    return [((e["p"], e["step"]), e["games"]) for e in events(run, "lease")]


def interrupt_at(program: Program, run: Path, step: Step) -> None:
    """Waits until that step of the run has got its games, interrupts, and checks what the program leaves."""
    try:
        program.wait_for("playing", 300)
        deadline = time.monotonic() + 300
        while step not in dict(leases(run)):
            assert program.process.poll() is None and time.monotonic() < deadline, program.output
            time.sleep(0.05)
        program.interrupt()
        assert program.end(180) == 130, program.output
        assert not program.processes()
    finally:
        program.clean_up()
    assert "Traceback" not in program.output
    summary = summary_of(run)
    check_books(summary)
    assert summary["status"] == "interrupted"
    check_kept(run, summary)


def check_kept(run: Path, summary: dict[str, Any]) -> None:
    """Of an interrupted run: a checkpoint of each learner holds every step that it reported."""
    for player, steps in summary["steps"].items():
        kept = [int(folder.name.removeprefix("step-")) for folder in (run / "checkpoints" / player).glob("step-*[0-9]")]
        assert max(kept, default=0) >= steps, (player, kept)


def check_books(summary: dict[str, Any]) -> None:
    """What must hold of every summary: nothing is lost, nothing is staler than allowed."""
    for player, rows in summary["rows"].items():
        evicted = sum(rows["evicted"].values())
        assert rows["learned"] + evicted + rows["held"] == rows["appended"], player
    assert summary["staleness"]["max_learned"] <= summary["staleness"]["bound"]
    games = summary["games"]
    assert games["finished"] + games["abandoned"] + games["open"] == games["started"]


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text
