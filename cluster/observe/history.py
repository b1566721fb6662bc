"""What every learner step reported, as `metrics.parquet`: one row a step and player.

Kept in memory (a step is a few hundred bytes) and written whole now and then, so that a reader never sees half a file.
"""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.rundir import RunDir
from protocol.files import write_file


class History:
    """Collects reports; `write` puts all of them on disk."""

    def __init__(self, run_dir: RunDir) -> None:
        self._path = run_dir.metrics
        self._rows: list[dict[str, Any]] = pq.read_table(self._path).to_pylist() if self._path.is_file() else []
        self.first_step_at: float | None = None

    def add(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Reports as `WeightPublisher.drain_metrics` gives them: player, step, version, time (Unix seconds), metrics."""
        for report in reports:
            row = {k: report[k] for k in ("player", "step", "version", "time")} | dict(report["metrics"])
            self._rows.append(row)
            if self.first_step_at is None:
                self.first_step_at = float(report["time"])

    def write(self) -> None:
        """Writes `metrics.parquet`; nothing is written before the first report."""
        if not self._rows:
            return
        names = list(dict.fromkeys(key for row in self._rows for key in row))
        table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in self._rows])
        sink = io.BytesIO()
        pq.write_table(table, sink)
        write_file(self._path, sink.getvalue())
