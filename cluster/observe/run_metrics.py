"""The driver's own metrics: the run as a whole, once a second. What each part does, it sets itself.

It only tells what it is given; `cluster.observe.meter` is where it goes.
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import structlog

from cluster.observe.facts import heldout_curve
from cluster.observe.view import RunView
from protocol import metrics as m
from protocol.meter import meter
from protocol.metrics import HELDOUT_SCORES, ROLE_PHASES, RUN_PHASES, Metric
from protocol.roles import PLAYERS

_log = structlog.get_logger(__name__)


class RunMetrics:
    """The driver's metrics of one run.

    Args:
        run_dir: whose disk is watched.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._disk_told = False
        self._measured: set[tuple[str, str]] = set()  # what had a value before: metric, score

    def enter(self, phase: str) -> None:
        """The run is in `phase` now, one of `RUN_PHASES`, and in no other."""
        for known in RUN_PHASES:
            meter().set(m.PHASE, known == phase, phase=known)

    def update(self, view: RunView, pools: Mapping[str, tuple[int, int]], states: Mapping[str, str]) -> None:
        """One moment.

        Args:
            pools: (fit workers, all) of each player and of the judge.
            states: of each generation and judge worker's role, as supervision finds it.
        """
        to = meter()
        to.inc(m.HEARTBEATS)
        to.set(m.TARGET_STEPS, view.steps)
        to.set(m.REMAINING, view.eta_s or 0.0)
        to.set(m.DISK_FREE, self._free_bytes())
        self._set_measured(m.PROBE, view.probe_accuracy, score="accuracy")
        self._set_measured(m.PROBE, view.probe_changed, score="changed")
        self._set_measured(m.PROBE_DRIFT, view.probe_drift)
        for pool, (fit, of) in pools.items():
            to.set(m.WORKERS_FIT, fit, pool=pool)
            to.set(m.WORKERS, of, pool=pool)
        for role, state in states.items():
            for known in ROLE_PHASES:
                to.set(m.PHASE, known == state, role=role, phase=known)
        if curve := heldout_curve(view):  # scores against the trained attacker are others
            newest = curve[-1]
            for score in HELDOUT_SCORES:
                self._set_measured(m.HELDOUT, getattr(newest, score), score=score)
            for player in PLAYERS:
                to.set(m.HELDOUT_VERSION, newest.versions[player], player=player)

    def _set_measured(self, metric: Metric, value: float | None, **labels: str) -> None:
        """Sets what the newest measurement says. Where it says nothing, an earlier one's value must not stand for it: NaN takes its
        place, which Prometheus compares with nothing and a graph leaves out."""
        key = metric.name, labels.get("score", "")
        if value is not None:
            self._measured.add(key)
        meter().set(metric, math.nan if value is None and key in self._measured else value, **labels)

    def _free_bytes(self) -> int | None:
        """What the disk has left; None where it does not say: a shared disk that hiccups is no reason to end a run."""
        try:
            free = shutil.disk_usage(self._run_dir).free
        except OSError as e:
            if not self._disk_told:  # once, not once a second
                _log.warning("the disk does not say what it has left", error=type(e).__name__, errno=e.errno)
            self._disk_told = True
            return None
        self._disk_told = False
        return free
