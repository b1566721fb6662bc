"""The driver's own metrics: the run as a whole, once a second. What each part does, it sets itself.

It only tells what it is given; `cluster.observe.meter` is where it goes.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import structlog

from cluster.observe.facts import heldout_curve
from cluster.observe.view import RunView
from protocol import metrics as m
from protocol.meter import meter
from protocol.metrics import HELDOUT_SCORES, ROLE_PHASES, RUN_PHASES
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
        to.set(m.PROBE, view.probe_accuracy, score="accuracy")
        to.set(m.PROBE, view.probe_changed, score="changed")
        to.set(m.PROBE_DRIFT, view.probe_drift)
        for pool, (fit, of) in pools.items():
            to.set(m.WORKERS_FIT, fit, pool=pool)
            to.set(m.WORKERS, of, pool=pool)
        for role, state in states.items():
            for known in ROLE_PHASES:
                to.set(m.PHASE, known == state, role=role, phase=known)
        if curve := heldout_curve(view):  # scores against the trained attacker are others
            newest = curve[-1]
            for score in HELDOUT_SCORES:
                to.set(m.HELDOUT, getattr(newest, score), score=score)
            for player in PLAYERS:
                to.set(m.HELDOUT_VERSION, newest.versions[player], player=player)

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
