"""CPU seconds of a game in a whole sandbox run that is watched in every way, against one that is not.

On: `python -m cluster watch` (metrics of every part, vLLM's own series, a real Prometheus that scrapes them and evaluates the
rules), JSON log lines and a TensorBoard sink. Off: `python -m cluster train` with `observe.metrics: false` and nothing else.
Held-out seeds are not measured in either; a third kind of run, as the first with `heldout.every`, gives that measuring's own
share. Runs of the first two kinds alternate, in pairs; what is given is the median of the pairs' ratios.

What is counted is the run's process and all below it, Ray's and Prometheus' among them, while a given number of games ends.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.harness import Result, write_results
from tests.benchmarks.processes import TreeClock
from tests.net import free_port
from tests.paths import ROOT

PAIRS, HELDOUT_RUNS = 5, 3
BEGIN, GAMES = 240, 1440  # games that end before the count begins; games in the count: about a minute
EVERY = 5  # steps between held-out measurements where they are on: each begins as soon as the one before has ended
START_S, PLAY_S, END_S = 300.0, 400.0, 90.0
RECIPE = "deploy/recipes/sandbox.yaml"
QUIET = {"seeds.heldout": "null"}
WATCHED = {"observe.logs": "json", "observe.sinks": "{tensorboard: {}}"}
UNWATCHED = {"observe.metrics": "false"}
MEASURED = {"heldout.every": EVERY}


@dataclass(frozen=True)
class Cost:
    """Of one run, in the count: CPU seconds and games."""

    cpu_s: float
    games: int

    @property
    def a_game_ms(self) -> float:
        return 1000.0 * self.cpu_s / self.games


class Games:
    """How many games of a run have ended, from its replay journal, of which each line is read once."""

    def __init__(self, run: Path) -> None:
        self._journal, self._at, self._rest, self._ended = run / "replay" / "journal.jsonl", 0, b"", 0

    def ended(self) -> int:
        if self._journal.is_file():
            with self._journal.open("rb") as file:
                file.seek(self._at)
                new = file.read()
            self._at += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            self._ended += sum(b'"e":"finish"' in line.replace(b" ", b"") for line in lines)
        return self._ended


def cost_of(command: Sequence[str], settings: dict[str, object], folder: Path) -> Cost:
    """Starts a run, counts, and ends it.

    Raises:
        RuntimeError: it ended by itself before the count did.
        TimeoutError: it did not play as far in time.
    """
    values = {"run.dir": folder, "run.name": "run", "run.steps": 1000, **settings}
    arguments = [sys.executable, "-u", "-m", "cluster", *command, *(f"--set={k}={v}" for k, v in values.items())]
    log = folder / "output.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=os.environ | {"ADVGAME_BENCHMARK": "observing"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    games, clock = Games(folder / "run"), TreeClock(process.pid)
    try:
        _until(lambda: games.ended() >= BEGIN, process, clock, START_S, log)
        first, began = games.ended(), clock.seconds()
        _until(lambda: games.ended() >= first + GAMES, process, clock, PLAY_S, log)
        return Cost(clock.seconds() - began, games.ended() - first)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _until(reached, process: subprocess.Popen[bytes], clock: TreeClock, limit_s: float, log: Path) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + limit_s
    while not reached():
        if process.poll() is not None:
            raise RuntimeError(f"the run ended by itself:\n{log.read_text()[-2000:]}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not that far in {limit_s:.0f} s:\n{log.read_text()[-2000:]}")
        clock.look()  # so that little is lost of a process that ends
        time.sleep(0.5)


def on(folder: Path) -> Cost:
    return cost_of(["watch", RECIPE, "--port", str(free_port())], QUIET | WATCHED, folder)


def off(folder: Path) -> Cost:
    return cost_of(["train", RECIPE], QUIET | UNWATCHED, folder)


def measured(folder: Path) -> Cost:
    return cost_of(["watch", RECIPE, "--port", str(free_port())], WATCHED | MEASURED, folder)


def measure() -> list[Result]:
    costs: dict[str, list[float]] = {"on": [], "off": [], "measured": []}
    kinds = {"on": on, "off": off, "measured": measured}
    orders = [("on", "off") if k % 2 == 0 else ("off", "on") for k in range(PAIRS)]
    plan = [name for k, order in enumerate(orders) for name in (*order, *(("measured",) if k < HELDOUT_RUNS else ()))]
    for name in plan:
        with tempfile.TemporaryDirectory() as folder:
            costs[name].append(kinds[name](Path(folder)).a_game_ms)
        print(f"{name}: {costs[name][-1]:.1f} CPU ms a game", flush=True)
    return results_of(costs["on"], costs["off"], costs["measured"])


def results_of(on_ms: Sequence[float], off_ms: Sequence[float], measured_ms: Sequence[float]) -> list[Result]:
    """The lines of the table: the pair of the median ratio, and the medians with and without held-out measuring. Pure."""
    pairs = sorted(zip(on_ms, off_ms, strict=True), key=lambda pair: pair[0] / pair[1])
    ours, other = pairs[len(pairs) // 2]
    spread = ", ".join(f"{a / b:.3f}" for a, b in zip(on_ms, off_ms, strict=True))
    return [
        Result("observing", ours, other, "ms/game", 1.03, False, f"CPU, on against off; ratios of the pairs {spread}"),
        Result(
            "observing-heldout",
            statistics.median(measured_ms),
            statistics.median(on_ms),
            "ms/game",
            None,
            False,
            f"CPU, held-out seeds measured all the time (heldout.every: {EVERY}) against not at all, both watched",
        ),
    ]


if __name__ == "__main__":
    write_results(Path(sys.argv[1]), measure())
