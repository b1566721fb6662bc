"""The meter of a process inside Ray: sets the catalogue's metrics on Ray's own Prometheus endpoint.

Each series carries the run and the process's role. A metric is made in Ray when it is first set. It decides nothing.

Ray forgets a gauge that is not set anew within two of its report intervals (20 s), though the process lives. Here a gauge holds: a
thread repeats the newest values. So only a process that is stopped, or gone, loses its gauges.
"""

import threading
import time
from typing import Any

from protocol import metrics as m
from protocol.metrics import Metric


class RayMeter:
    """See `protocol.meter.Meter`.

    Args:
        run, role: labels of every series; `role` may be given with a value that is about another role.
    """

    def __init__(self, run: str, role: str) -> None:
        self._common = {"run": run, "role": role}
        self._made: dict[str, Any] = {}
        self._totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Any, float, dict[str, str]]] = {}
        self._lock = threading.Lock()  # a repeated value must not overtake a newer one
        self._repeater: threading.Thread | None = None

    def set(self, metric: Metric, value: float | None, **labels: str) -> None:
        """A gauge's newest value."""
        if value is None:
            return
        gauge, tags = self._ray(metric), self._common | labels
        with self._lock:
            self._gauges[metric.name, tuple(sorted(labels.items()))] = gauge, float(value), tags
            gauge.set(float(value), tags=tags)
            if self._repeater is None:
                self._repeater = threading.Thread(target=self._keep_repeating, name="gauges", daemon=True)
                self._repeater.start()

    def repeat(self) -> None:
        """Tells Ray the newest value of every gauge once more."""
        with self._lock:
            for gauge, value, tags in self._gauges.values():
                gauge.set(value, tags=tags)

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Adds to a counter; Ray takes no 0."""
        if amount > 0:
            self._ray(metric).inc(float(amount), tags=self._common | labels)

    def total(self, metric: Metric, value: float, **labels: str) -> None:
        """Adds what is new since the last total. One that fell began anew: all of it is new."""
        key = (metric.name, tuple(sorted(labels.items())))
        before = self._totals.get(key, 0.0)
        self._totals[key] = value
        self.inc(metric, value - before if value >= before else value, **labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """One value of a histogram."""
        self._ray(metric).observe(float(value), tags=self._common | labels)

    def _keep_repeating(self) -> None:
        import ray

        while ray.is_initialized():
            time.sleep(max(ray._config.metrics_report_interval_ms(), 1000) / 2000)  # Ray reports once a second at most
            if ray.is_initialized():
                self.repeat()

    def _ray(self, metric: Metric) -> Any:
        found = self._made.get(metric.name)
        if found is None:
            found = self._made[metric.name] = _make(metric)
        return found


def _make(metric: Metric) -> Any:
    from ray.util.metrics import Counter, Gauge, Histogram

    labels = (*m.COMMON, *metric.labels)
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.help, list(metric.buckets), labels)
    return (Counter if metric.kind == "counter" else Gauge)(metric.name, metric.help, labels)
