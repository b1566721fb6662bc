"""What a run directory holds of a run's metrics: read anew whenever a file changed, and whatever state the files are in.

A file that is missing or no whole one gives nothing; that is counted, and said once until the file can be read again.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    """

    samples: tuple[Sample, ...]
    time_s: float | None
    unread: Mapping[tuple[str, Reason], int]


Read = tuple[float | None, Kept]
NOTHING: Read = (None, Kept())


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
        self._lock = threading.Lock()  # several may ask at once

    def read(self) -> Found:
        """Everything, as it is now."""
        with self._lock:
            found = [self._read(path, read) for path, read in self._files.items()]
            times = [time_s for time_s, _ in found if time_s is not None]
            samples = tuple(sample for _, kept in found for sample in kept.samples())
            return Found(samples, max(times, default=None), dict(self._unread))

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
        return value

    def _give_up(self, path: Path, reason: Reason, why: str) -> Read:
        self._unread[path.name, reason] += 1
        if path not in self._said:
            self._said.add(path)
            self._say(f"{path.name} {why}")
        return NOTHING


def read_steps(run_dir: RunDir) -> Read:
    """What learner steps reported, as the learners themselves count it.

    Whether a step staged a version is not in the file, so that the seconds of staging are left out.
    """
    table = pq.read_table(run_dir.metrics)
    columns = ["player", "step", "time", *COUNTED, *(name for name in GAUGES if name in table.column_names)]
    kept, newest = Kept(), None
    learners = {player: kept.of(f"learner-{player}-0") for player in PLAYERS}
    for row in table.select(columns).to_pylist():
        known = {name: value for name, value in row.items() if value is not None}
        count_step(row["player"], row["step"], known, staged=False, to=learners[row["player"]])
        newest = max(newest or 0.0, row["time"])
    return newest, kept


def read_moment(run_dir: RunDir) -> Read:
    """When it was written, Unix seconds, and what it holds. Series that the catalogue does not know are left out.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is not what `moment.Newest` writes.
    """
    found: Any = json.loads(run_dir.moment.read_text(encoding="utf-8"))
    kept = Kept()
    try:
        for row in found["samples"]:
            metric = BY_NAME.get(row["metric"])
            if metric is None or metric.kind == "histogram":
                continue
            to = kept.of(str(row["role"]))
            (to.set if metric.kind == "gauge" else to.total)(metric, float(row["value"]), **row["labels"])
        return float(found["time"]), kept
    except (KeyError, TypeError) as e:
        raise ValueError(f"{run_dir.moment.name}: {type(e).__name__}") from None
