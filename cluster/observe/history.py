"""What every learner step reported, as `metrics.parquet`: one row a step and player.

Kept in memory (a step is a few hundred bytes) and written whole now and then, so that a reader never sees half a file.
"""

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.publish.stats import StepReport
from cluster.rundir import RunDir
from protocol.files import write_file

AT = ("player", "step", "version", "time")


class History:
    """Collects reports; `write` puts all of them on disk."""

    def __init__(self, run_dir: RunDir) -> None:
        self._path = run_dir.metrics
        self._rows: list[dict[str, Any]] = pq.read_table(self._path).to_pylist() if self._path.is_file() else []
        self.first_step_at: float | None = None

    def add(self, reports: Iterable[StepReport]) -> None:
        """Notes reports; each metric becomes a column beside `player`, `step`, `version` and `time` (Unix seconds)."""
        for report in reports:
            at = {"player": report.player, "step": report.step, "version": report.version, "time": report.time_s}
            self._rows.append(at | dict(report.metrics))
            if self.first_step_at is None:
                self.first_step_at = report.time_s

    def reports(self) -> list[StepReport]:
        """Every report so far, of the run's earlier parts too, in the order in which they came."""
        return [
            StepReport(
                row["player"],
                row["step"],
                row["version"],
                row["time"],
                {key: value for key, value in row.items() if key not in AT and value is not None},
            )
            for row in self._rows
        ]

    def write(self) -> None:
        """Writes `metrics.parquet`; nothing is written before the first report."""
        if not self._rows:
            return
        names = list(dict.fromkeys(key for row in self._rows for key in row))
        table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in self._rows])
        sink = io.BytesIO()
        pq.write_table(table, sink)
        write_file(self._path, sink.getvalue())
