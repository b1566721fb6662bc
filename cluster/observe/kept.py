"""A meter that keeps every series' newest value, for those who take all of them at once: sinks, and the file that is served.

It goes nowhere by itself. `Both` lets a process's values go to Ray and be kept.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from protocol.meter import Meter, check_labels
from protocol.metrics import BY_NAME, Metric

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One series.

    Attributes:
        labels: the metric's own, in the catalogue's order; `role` is the common one, `run` is left out.
        value: newest, or the whole count. A histogram's is the sum of what it saw.
        buckets: of a histogram, how many values were at most each of its bounds, the last without one; else empty.
    """

    metric: Metric
    role: str
    labels: Labels
    value: float
    buckets: tuple[int, ...] = ()


class Kept:
    """Every series that was set so far."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, Labels], float] = {}
        self._counts: dict[tuple[str, str, Labels], list[int]] = {}

    def of(self, role: str) -> Meter:
        """What that role's process says of itself."""
        return _Role(self, role)

    def samples(self) -> list[Sample]:
        """All of them; those of one metric stand together, in no other order."""
        found = [
            Sample(BY_NAME[name], role, labels, value, tuple(accumulate(self._counts.get((name, role, labels), ()))))
            for (name, role, labels), value in self._values.items()
        ]
        return sorted(found, key=lambda sample: sample.metric.name)

    def _set(self, key: tuple[str, str, Labels], value: float) -> None:
        self._values[key] = value

    def _add(self, key: tuple[str, str, Labels], amount: float) -> None:
        self._values[key] = self._values.get(key, 0.0) + amount

    def _count(self, key: tuple[str, str, Labels], bucket: int, of: int) -> None:
        self._counts.setdefault(key, [0] * of)[bucket] += 1


class _Role:
    """See `protocol.meter.Meter`."""

    def __init__(self, kept: Kept, role: str) -> None:
        self._kept, self._role = kept, role

    def set(self, metric: Metric, value: float | None, **labels: str) -> None:
        if value is not None:
            self._kept._set(self._key(metric, labels), float(value))

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        if amount > 0:  # as at Ray's endpoint, a series begins with its first event
            self._kept._add(self._key(metric, labels), float(amount))

    def total(self, metric: Metric, value: float, **labels: str) -> None:
        if value > 0:
            self._kept._set(self._key(metric, labels), float(value))

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        key = self._key(metric, labels)
        self._kept._add(key, float(value))
        self._kept._count(key, bisect_left(metric.buckets, value), len(metric.buckets) + 1)

    def _key(self, metric: Metric, labels: dict[str, str]) -> tuple[str, str, Labels]:
        check_labels(metric, labels)
        return metric.name, labels.get("role", self._role), tuple((name, labels[name]) for name in metric.labels)


class Both:
    """A meter that passes everything on to two."""

    def __init__(self, one: Meter, other: Meter) -> None:
        self._meters = (one, other)

    def set(self, metric: Metric, value: float | None, **labels: str) -> None:
        """See `protocol.meter.Meter`."""
        for meter in self._meters:
            meter.set(metric, value, **labels)

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """See `protocol.meter.Meter`."""
        for meter in self._meters:
            meter.inc(metric, amount, **labels)

    def total(self, metric: Metric, value: float, **labels: str) -> None:
        """See `protocol.meter.Meter`."""
        for meter in self._meters:
            meter.total(metric, value, **labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """See `protocol.meter.Meter`."""
        for meter in self._meters:
            meter.observe(metric, value, **labels)
