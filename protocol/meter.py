"""Where a process's metrics go: a meter that is installed once, as a process's log is.

The parts say what happened (`meter().inc(metrics.GAMES, outcome="finished")`) and know nothing of who listens; without an installed
meter it goes nowhere, so that libraries and unit tests need none. The Ray meter is `cluster.observe.meter`.
"""

from typing import Protocol

from protocol.metrics import COMMON, Metric


class Meter(Protocol):
    """Takes values of metrics. `labels` are the metric's own; `role` may be given for what is said of another role."""

    def set(self, metric: Metric, value: float | None, **labels: str) -> None:
        """A gauge's newest value; None is not known and changes nothing."""
        ...

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Adds to a counter; 0 changes nothing."""
        ...

    def total(self, metric: Metric, value: float, **labels: str) -> None:
        """A counter's whole count since this process, or its run, began: what is new since the last one is added."""
        ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """One value of a histogram."""
        ...


class Silent:
    """Drops everything."""

    def set(self, metric: Metric, value: float | None, **labels: str) -> None: ...
    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None: ...
    def total(self, metric: Metric, value: float, **labels: str) -> None: ...
    def observe(self, metric: Metric, value: float, **labels: str) -> None: ...


_installed: Meter = Silent()


def install(meter: Meter) -> None:
    """From now on this process's metrics go to `meter`."""
    global _installed
    _installed = meter


def meter() -> Meter:
    """This process's meter."""
    return _installed


def is_metered() -> bool:
    """Whether one is installed."""
    return not isinstance(_installed, Silent)


def check_labels(metric: Metric, labels: dict[str, str]) -> None:
    """Raises `ValueError` unless `labels` are the metric's, with values that it knows; `COMMON` may be among them."""
    given = set(labels) - set(COMMON)
    if given != set(metric.labels):
        raise ValueError(f"{metric.name} has the labels {metric.labels}, not {sorted(given)}")
    for label in metric.labels:
        known = metric.known(label)
        if known is not None and labels[label] not in known:
            raise ValueError(f"{metric.name}: {label} is one of {known}, not {labels[label]!r}")
