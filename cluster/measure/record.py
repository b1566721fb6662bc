"""The held-out scores of one run so far, and what was skipped of them, kept in the run directory for the parts that resume it.

It measures nothing and shows nothing. A file that cannot be written is logged and written whole again with the next change: a
measurement is no reason to end a run.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import structlog
from pydantic import TypeAdapter

from cluster.measure.points import HeldoutPoint
from cluster.rundir import RunDir, resume_from
from protocol import metrics as m
from protocol.files import write_json
from protocol.meter import meter

# Why a measurement that was due gave no point: another was under way; a step was passed unseen, with a later one that was due; the
# end was near; it took longer than heldout.deadline_s; it broke; the judge or the Defender failed on too much of it; the run ended.
Reason = Literal["busy", "passed", "near_end", "late", "failed", "unjudged", "ended"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the file holds."""

    points: tuple[HeldoutPoint, ...] = ()
    skipped: Mapping[Reason, int] = field(default_factory=dict)
    reached: int = 0


def _read(path: Path) -> _Kept:
    remedy = "put a whole copy back, or move it away: the held-out scores so far are left out of summary.json then"
    with resume_from(path, remedy):
        return TypeAdapter(_Kept).validate_json(path.read_bytes())


class HeldoutRecord:
    """What the module says, from the file of an earlier part of the run on.

    Attributes:
        points: oldest first.
        reached: newest step at which a measurement was due; 0 before the first.

    Raises:
        UserError: the file of an earlier part of the run is damaged.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self._path = run_dir.heldout_points
        kept = _read(self._path) if self._path.is_file() else _Kept()
        self.points, self.reached = kept.points, kept.reached
        self._skipped: Counter[Reason] = Counter(kept.skipped)

    @property
    def skipped(self) -> Mapping[Reason, int]:
        """Measurements that were due and gave no point."""
        return dict(self._skipped)

    def reach(self, step: int) -> None:
        """Notes that a measurement was due at `step`. On disk with what becomes of it."""
        self.reached = step

    def add(self, point: HeldoutPoint) -> None:
        """Notes a point, in place of an earlier one of the same occasion: a resumed run may measure its end again."""
        self.points = (*(p for p in self.points if p.occasion != point.occasion), point)
        self._write()

    def skip(self, reason: Reason, n: int = 1) -> None:
        """Notes measurements that were due and gave no point."""
        self._skipped[reason] += n
        meter().inc(m.HELDOUT_SKIPPED, n, reason=reason)
        self._write()

    def _write(self) -> None:
        value = {"points": [asdict(p) for p in self.points], "skipped": self.skipped, "reached": self.reached}
        try:
            write_json(self._path, value)
        except OSError as e:
            _log.error("held-out points not written", error=type(e).__name__, errno=e.errno)
