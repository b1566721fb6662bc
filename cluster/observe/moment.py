"""`moment.json`: the newest value of every series that the driver knows, for whoever looks at a run without Ray.

Written whole every few seconds while the run goes on, and at its end. What learner steps reported is not in it: that is
`metrics.parquet`. `export.read` reads both. A file that cannot be written is logged and written again with the next one.
"""

import math
import time

import structlog

from cluster.observe.kept import Kept, Sample
from cluster.observe.view import RunStats
from cluster.plan.placement import PUBLISHER, REPLAY
from cluster.plan.plan import Plan
from cluster.publish.pushes import tell_versions
from cluster.replay.metering import ReplayMetrics
from protocol.files import write_json

_log = structlog.get_logger(__name__)


class Newest:
    """What the driver knows in numbers, by the catalogue.

    Args:
        kept: what the driver's own meter is told, too.
    """

    def __init__(self, plan: Plan, kept: Kept) -> None:
        self._kept, self._path = kept, plan.run_dir.moment
        admission = plan.replay.admission
        both_orders = plan.replay.both_orders
        self._replay = ReplayMetrics(admission.max_staleness, admission.batch_games, both_orders, kept.of(REPLAY))
        self._publisher = kept.of(PUBLISHER)

    def note(self, stats: RunStats) -> None:
        """What the parts say of themselves; what one that never answered would say is left out."""
        if stats.replay.answered:
            self._replay.report(stats.replay)
        if stats.publisher.answered:
            tell_versions(stats.publisher, self._publisher)

    def samples(self) -> list[Sample]:
        """All of it."""
        return self._kept.samples()

    def write(self) -> None:
        """Writes the file; nothing before anything is known."""
        samples = [sample for sample in self.samples() if not sample.buckets and math.isfinite(sample.value)]
        if not samples:
            return
        rows = [{"metric": s.metric.name, "role": s.role, "labels": dict(s.labels), "value": s.value} for s in samples]
        try:
            write_json(self._path, {"time": time.time(), "samples": rows})
        except OSError as e:
            _log.error("moment not written", error=type(e).__name__, errno=e.errno)
