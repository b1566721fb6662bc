"""What a run directory holds of a run's metrics: read anew whenever a file changed, and whatever state the files are in.

A file that is missing or no whole one gives nothing; that is counted, and said once until the file can be read again. An entry that
this catalogue does not take (another version wrote it) is left out alone, counted and said too.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.observe.kept import Kept, Sample
from cluster.rundir import RunDir
from learners.step_metrics import GAUGES, count_step
from protocol.metrics import BY_NAME
from protocol.roles import PLAYERS

Reason = Literal["missing", "broken"]
COUNTED = ("items", "skipped", "seconds", "lease_s", "tokens")  # of what a step reports, besides the gauges
BROKEN = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class Found:
    """What could be read.

    Attributes:
        time_s: when the newest values were taken, Unix seconds; None: there are none.
        unread: times that a file could not be read so far, by its name and why.
        left_out: entries of the files as they are now that were left out, by the file's name.
    """

    samples: tuple[Sample, ...]
    time_s: float | None
    unread: Mapping[tuple[str, Reason], int]
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Read:
    """One file's content.

    Attributes:
        time_s: when its newest values were taken, Unix seconds; None: it has none.
        left_out: entries that the catalogue does not take.
    """

    time_s: float | None = None
    kept: Kept = field(default_factory=Kept)
    left_out: int = 0


class RunFiles:
    """The files of one run.

    Args:
        say: told of a file that cannot be read.
    """

    def __init__(self, run_dir: RunDir, say: Callable[[str], None]) -> None:
        self._say = say
        self._files: dict[Path, Callable[[], Read]] = {
            run_dir.metrics: lambda: read_steps(run_dir),
            run_dir.moment: lambda: read_moment(run_dir),
        }
        self._known: dict[Path, tuple[tuple[int, int, int], Read]] = {}
        self._unread: Counter[tuple[str, Reason]] = Counter()
        self._said: set[Path] = set()
        self._said_left_out: set[Path] = set()
        self._lock = threading.Lock()  # several may ask at once

    def read(self) -> Found:
        """Everything, as it is now."""
        with self._lock:
            found = {path.name: self._read(path, read) for path, read in self._files.items()}
            times = [one.time_s for one in found.values() if one.time_s is not None]
            samples = tuple(sample for one in found.values() for sample in one.kept.samples())
            left_out = {name: one.left_out for name, one in found.items() if one.time_s is not None}
            return Found(samples, max(times, default=None), dict(self._unread), left_out)

    def _read(self, path: Path, read: Callable[[], Read]) -> Read:
        try:
            stat = path.stat()
            version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            known = self._known.get(path)
            if known is not None and known[0] == version:
                return known[1]
            value = read()
        except FileNotFoundError:
            return self._give_up(path, "missing", "is not there (yet); what it would hold is left out")
        except BROKEN as e:
            return self._give_up(path, "broken", f"cannot be read ({type(e).__name__}); what it holds is left out")
        self._known[path] = (version, value)
        self._said.discard(path)
        if not value.left_out:
            self._said_left_out.discard(path)
        elif path not in self._said_left_out:
            self._said_left_out.add(path)
            self._say(
                f"{path.name}: {value.left_out} entries are left out, for this version's catalogue does not take them"
            )
        return value

    def _give_up(self, path: Path, reason: Reason, why: str) -> Read:
        self._unread[path.name, reason] += 1
        if path not in self._said:
            self._said.add(path)
            self._say(f"{path.name} {why}")
        return Read()


def read_steps(run_dir: RunDir) -> Read:
    """What learner steps reported, as the learners themselves count it.

    Whether a step staged a version is not in the file, so that the seconds of staging are left out.
    """
    table = pq.read_table(run_dir.metrics)
    columns = ["player", "step", "time", *COUNTED, *(name for name in GAUGES if name in table.column_names)]
    kept, newest, left_out = Kept(), None, 0
    learners = {player: kept.of(f"learner-{player}-0") for player in PLAYERS}
    for row in table.select(columns).to_pylist():
        if row["player"] not in learners:
            left_out += 1
            continue
        known = {name: value for name, value in row.items() if value is not None}
        count_step(row["player"], row["step"], known, staged=False, to=learners[row["player"]])
        newest = max(newest or 0.0, row["time"])
    return Read(newest, kept, left_out)


def read_moment(run_dir: RunDir) -> Read:
    """What it holds. A metric that the catalogue does not know, or no longer as this type, is another version's and is skipped.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is not what `moment.Newest` writes.
    """
    found: Any = json.loads(run_dir.moment.read_text(encoding="utf-8"))
    kept, left_out = Kept(), 0
    try:
        time_s, rows = float(found["time"]), list(found["samples"])
    except (KeyError, TypeError) as e:
        raise ValueError(f"{run_dir.moment.name}: {type(e).__name__}") from None
    for row in rows:
        try:
            _take(row, kept)
        except (AttributeError, KeyError, TypeError, ValueError):
            left_out += 1
    return Read(time_s, kept, left_out)


def _take(row: Any, kept: Kept) -> None:
    """One sample. Raises if it is none, or has labels that the catalogue does not know."""
    metric = BY_NAME.get(row["metric"])
    if metric is None or metric.kind == "histogram":
        return
    labels = row["labels"]
    if not all(isinstance(text, str) for text in (row["role"], *labels.values())):
        raise TypeError("a label that is no text breaks the whole answer to a scrape")
    to = kept.of(row["role"])
    (to.set if metric.kind == "gauge" else to.total)(metric, float(row["value"]), **labels)
