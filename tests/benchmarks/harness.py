"""What a benchmark returns, and the table of all of them.

Every benchmark is a module of this package with `measure() -> list[Result]`, run in a process of its own, so that none inherits
another's threads, caches or Ray. A ratio is ours / other, both from that process's run; a target says which side of it is good.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

LIMIT_S = 900.0  # for one benchmark's process
LONG = {"observing": 3600.0}  # those that play whole runs


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        ours, other: in `unit`; `other` is None where the target is absolute, and the ratio is then `ours`.
        target: what the ratio is held to, or None; `at_least` says from which side.
        note: what the figures are of, in a few words.
    """

    name: str
    ours: float
    other: float | None
    unit: str
    target: float | None
    at_least: bool
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.ours if self.other is None else self.ours / self.other

    @property
    def ok(self) -> bool:
        if self.target is None:
            return True
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def as_dict(self) -> dict[str, object]:
        """As `bench.json` holds it."""
        return asdict(self) | {"ratio": self.ratio, "ok": self.ok}


def run_one(module: str) -> list[Result]:
    """Runs one benchmark in a process of its own.

    Raises:
        RuntimeError: it failed; the message ends with its last lines.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.json"
        done = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{module}", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONG.get(module, LIMIT_S),
            check=False,
        )
        if done.returncode or not out.is_file():
            raise RuntimeError(f"{module}: exit status {done.returncode}\n" + "\n".join(done.stdout.splitlines()[-30:]))
        return [Result(**entry) for entry in json.loads(out.read_text())]


def write_results(path: Path, results: Sequence[Result]) -> None:
    """For `run_one`'s process: hands the results over."""
    path.write_text(json.dumps([asdict(result) for result in results]))


def save(path: Path, results: Sequence[Result]) -> None:
    """Writes `bench.json`, whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([result.as_dict() for result in results], indent=2) + "\n")
    partial.replace(path)


def amount(value: float) -> str:
    """Four significant digits, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def show(results: Sequence[Result]) -> None:
    """Prints the table."""
    table = Table(title="benchmarks", title_justify="left")
    for name in ("name", "ours", "other", "unit", "ratio", "target", "ok", "what"):
        table.add_column(name, justify="right" if name in ("ours", "other", "ratio", "target") else "left")
    for r in results:
        sign = ">=" if r.at_least else "<="
        other = "-" if r.other is None else amount(r.other)
        table.add_row(
            r.name,
            amount(r.ours),
            other,
            r.unit,
            f"{r.ratio:.3f}",
            "-" if r.target is None else f"{sign} {r.target:g}",
            "-" if r.target is None else "yes" if r.ok else "NO",
            r.note,
        )
    Console(width=150).print(table)
