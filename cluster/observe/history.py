"""What every learner step reported, as `metrics.parquet`: one row a step and player, that of the last attempt.

A learner that restarts from a checkpoint reports a step that is not above its last one: what it reported of that step and later is
undone, and those rows go. Files of earlier versions, which repeat steps, are read in the same way.

A held-out score that was measured while the run learned stands in the Defender's row of the step at which it began, in the columns
`HELDOUT`, which are null everywhere else: three shares (0 to 1), the Defender's version that the score is named by, and whether
responses of other versions are in it. The score at the end stands in the last row; the one before the first step has no row. Scores
against the trained attacker are left out, because those of other attacks cannot be compared.

Kept in memory (a step is a few hundred bytes) and written whole now and then, so that a reader never sees half a file. A file that
cannot be written is logged and written again with the next one: figures are no reason to end a run.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from cluster.measure.points import HeldoutPoint
from cluster.publish.stats import StepReport
from cluster.rundir import RunDir, resume_from
from protocol.files import write_file
from protocol.roles import PLAYERS, Player

_log = structlog.get_logger(__name__)

AT = ("player", "step", "version", "time")
HELDOUT = (
    "heldout_attack_success",
    "heldout_over_refusal",
    "heldout_benign_compliance",
    "heldout_version",
    "heldout_mixed",
)


class History:
    """Collects reports; `write` puts all of them on disk.

    Raises:
        UserError: the file of an earlier part of the run is damaged.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self._path = run_dir.metrics
        self._rows: list[dict[str, Any]] = []
        self._last: dict[Player, int] = {}  # each player's last step in `_rows`
        self.first_step_at: float | None = None
        for row in _read_rows(self._path) if self._path.is_file() else []:
            self._append(row)

    def add(self, reports: Iterable[StepReport]) -> None:
        """Notes reports; each metric becomes a column beside `player`, `step`, `version` and `time` (Unix seconds)."""
        for report in reports:
            at = {"player": report.player, "step": report.step, "version": report.version, "time": report.time_s}
            self._append(at | dict(report.metrics))
            if self.first_step_at is None:
                self.first_step_at = report.time_s

    def _append(self, row: dict[str, Any]) -> None:
        """Adds a row, and drops the player's rows of its step and later: an earlier attempt took them, and they are undone."""
        player, step = row["player"], row["step"]
        if step <= self._last.get(player, -1):
            self._rows = [r for r in self._rows if r["player"] != player or r["step"] < step]
        self._last[player] = step
        self._rows.append(row)

    def note_heldout(self, point: HeldoutPoint) -> None:
        """Writes a held-out score into the Defender's newest row at or before its step, if there is one."""
        if point.occasion == "end_trained_attacker":
            return
        scores = (point.attack_success, point.over_refusal, point.benign_compliance)
        values = (*scores, point.versions["defender"], point.mixed)
        for row in reversed(self._rows):
            if row["player"] == "defender" and row["step"] <= point.step:
                row.update(zip(HELDOUT, values, strict=True))
                return

    def reports(self) -> list[StepReport]:
        """Every report so far, of the run's earlier parts too, in the order in which they came, without held-out scores."""
        return [
            StepReport(
                row["player"],
                row["step"],
                row["version"],
                row["time"],
                {key: value for key, value in row.items() if key not in (*AT, *HELDOUT) and value is not None},
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
        try:
            write_file(self._path, sink.getvalue())
        except OSError as e:
            _log.error("metrics not written", error=type(e).__name__, errno=e.errno)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    remedy = "put a whole copy back, or move it away: the metrics of the steps so far are lost then, and nothing else"
    with resume_from(path, remedy):
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        for row in rows:
            if row["player"] not in PLAYERS or not (isinstance(row["step"], int) and isinstance(row["version"], int)):
                raise ValueError("a row of no learner")
            float(row["time"])
        return rows
