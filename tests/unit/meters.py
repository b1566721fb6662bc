"""A meter that keeps what it is told and refuses what the catalogue does not know. For unit tests only."""

from collections import defaultdict

from protocol.meter import check_labels
from protocol.metrics import Metric


class RecordingMeter:
    """`gauges` and `counters` hold the newest value and the sum, `histograms` every value, by metric and label values in order."""

    def __init__(self) -> None:
        self.gauges: dict[tuple[str, ...], float] = {}
        self.counters: dict[tuple[str, ...], float] = defaultdict(float)
        self.histograms: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def set(self, metric: Metric, value: float | None, **labels: str) -> None:
        if value is not None:
            self.gauges[self._key(metric, "gauge", labels)] = float(value)

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        assert amount >= 0, "a counter never falls"
        key = self._key(metric, "counter", labels)
        if amount:
            self.counters[key] += amount

    def total(self, metric: Metric, value: float, **labels: str) -> None:
        self.counters[self._key(metric, "counter", labels)] = value

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self.histograms[self._key(metric, "histogram", labels)].append(value)

    @staticmethod
    def _key(metric: Metric, kind: str, labels: dict[str, str]) -> tuple[str, ...]:
        assert metric.kind == kind, f"{metric.name} is a {metric.kind}"
        check_labels(metric, labels)
        of = [labels[name] for name in ("role", *metric.labels) if name in labels]
        return (metric.name.removeprefix("advgame_"), *of)
