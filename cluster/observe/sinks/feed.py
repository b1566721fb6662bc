"""From a run's moments to a sink's records: which numbers go out, under which names, how often. Pure; the clock is the caller's.

Names come from the catalogue: the player or "run", the metric without `advgame_`, then its other labels, as in `attacker/loss`,
`defender/reward/benign`, `run/attacks_total/ok/harmful`.
"""

import math
from collections.abc import Iterable, Sequence

from cluster.observe.facts import heldout_curve
from cluster.observe.kept import Labels, Sample
from cluster.observe.sinks.sink import Axis, Record
from cluster.observe.view import RunView
from cluster.publish.stats import StepReport
from learners.step_metrics import GAUGES
from protocol import metrics as m
from protocol.metrics import HELDOUT_SCORES, Metric
from protocol.roles import PLAYERS

EVERY_S = 10.0  # between two moments; a learner step's own numbers go out with the step
# Not for a curve: which phase each process is in, heartbeats, Unix times; and held-out scores, which have records of their own.
LEFT_OUT = {metric.name for metric in (m.PHASE, m.HEARTBEATS, m.PROCESS_START, m.HELDOUT, m.HELDOUT_VERSION)}


def name_series(metric: Metric, labels: Labels) -> tuple[Axis, str]:
    """A series' axis and its name in a sink."""
    rest, axis = [value for label, value in labels if label != "player"], dict(labels).get("player", "run")
    name = "/".join([axis, metric.name.removeprefix("advgame_"), *rest])
    return next((player for player in PLAYERS if player == axis), "run"), name


class Feed:
    """Takes moments in their order and gives the records that are due.

    Args:
        measured: occasions of held-out scores that an earlier part of the run handed over.
    """

    def __init__(self, measured: Iterable[str] = ()) -> None:
        self._measured = set(measured)
        self._next_s = float("-inf")

    def records(
        self, view: RunView, reports: Iterable[StepReport], samples: Sequence[Sample], now_s: float, last: bool = False
    ) -> list[Record]:
        """The records of a moment.

        Args:
            reports: of the learners, since the moment before.
            samples: of every series that the driver knows.
            now_s: Unix seconds.
            last: it is the run's last moment, so that it is due.
        """
        found = [*of_steps(reports), *self._heldout(view)]
        if last or now_s >= self._next_s:
            self._next_s = now_s + EVERY_S
            found += _of_moment(view, samples, now_s)
        return found

    def _heldout(self, view: RunView) -> list[Record]:
        """Scores that are new."""
        new = [point for point in heldout_curve(view) if point.occasion not in self._measured]
        self._measured |= {point.occasion for point in new}
        found = []
        for point in new:
            shares = {name: getattr(point, name) for name in HELDOUT_SCORES}
            values = {_heldout_name(m.HELDOUT, name): share for name, share in shares.items() if share is not None}
            versions = {_heldout_name(m.HELDOUT_VERSION, p): float(point.versions[p]) for p in PLAYERS}
            found.append(Record("heldout", point.step, point.time_s, values | versions))
        return found


def _heldout_name(metric: Metric, of: str) -> str:
    return f"heldout/{metric.name.removeprefix('advgame_heldout_')}/{of}"


def of_steps(reports: Iterable[StepReport]) -> list[Record]:
    """What learner steps reported."""
    return [_of_step(report) for report in reports]


def _of_step(report: StepReport) -> Record:
    """Its loss and its gradient may be no finite numbers: that is worth seeing."""
    labels = (("player", report.player),)
    known = {metric: report.metrics.get(name) for name, metric in GAUGES.items()}
    known |= {m.VERSION: report.version, m.STEP_SECONDS: report.metrics.get("seconds")}
    known |= {m.LEASE_SECONDS: report.metrics.get("lease_s")}
    values = {name_series(metric, labels)[1]: float(value) for metric, value in known.items() if value is not None}
    return Record(report.player, report.step, report.time_s, values)


def _of_moment(view: RunView, samples: Sequence[Sample], now_s: float) -> list[Record]:
    """The newest value of every series, on each player's axis and the run's."""
    steps: dict[Axis, int] = {p: view.players[p].step for p in PLAYERS}
    behind = min((v.step for v in view.players.values() if v.learns), default=0)
    axes: tuple[Axis, ...] = (*PLAYERS, "run")
    values: dict[Axis, dict[str, float]] = {axis: {} for axis in axes}
    for sample in samples:
        # A driver's gauge is NaN where its newest measurement says nothing (`run_metrics`).
        if sample.metric.name not in LEFT_OUT and not sample.buckets and not math.isnan(sample.value):
            axis, name = name_series(sample.metric, sample.labels)
            before = values[axis].get(name, 0.0) if sample.metric.kind == "counter" else 0.0
            values[axis][name] = before + sample.value  # the counts of several roles add up
    for player in PLAYERS:
        mine, name = view.players[player], name_series(m.STALENESS, (("player", player),))[1]
        stale = {"mean": mine.staleness, "max": mine.max_staleness}
        values[player] |= {f"{name}/{which}": float(value) for which, value in stale.items() if value is not None}
    return [Record(axis, steps.get(axis, behind), now_s, found) for axis, found in values.items() if found]
