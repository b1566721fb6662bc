"""A run's newest values as Prometheus' metric families, by the catalogue: names (as Ray spells them), types, help, labels. Pure.

The same names as at Ray's endpoint, so that boards and alerts work on either. What is not known is left out.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.observe.export.read import Found
from cluster.observe.kept import Sample
from protocol import metrics as m
from protocol.metrics.metric import PREFIX

# About the exporter itself, which no run has: not in the catalogue.
UNREAD: Final = ("advgame_exporter_unread_total", "Times that a file of the run directory could not be read, by why.")
LEFT_OUT: Final = (
    "advgame_exporter_left_out_entries",
    "Entries of a file as it is now that were left out, for this version's catalogue does not take them.",
)
NEWEST: Final = ("advgame_exporter_newest_timestamp_seconds", "When the newest of the values were taken, Unix time.")


class RunCollector(Collector):
    """Reads at each scrape.

    Args:
        run: the run's name.
    """

    def __init__(self, run: str, read: Callable[[], Found]) -> None:
        self._run, self._read = run, read

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not read the files to know the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families that have a series."""
        return families(self._run, self._read())


def families(run: str, found: Found) -> Iterator[Metric]:
    """The families of what was read."""
    samples = sorted(found.samples, key=lambda sample: sample.metric.name)
    for name, series in groupby(samples, key=lambda sample: sample.metric.name):
        yield _family(m.BY_NAME[name], run, list(series))
    unread = CounterMetricFamily(*UNREAD, labels=("run", "file", "reason"))
    for (file, reason), n in found.unread.items():
        unread.add_metric((run, file, reason), n)
    yield unread
    if found.left_out:
        left_out = GaugeMetricFamily(*LEFT_OUT, labels=("run", "file"))
        for file, n in found.left_out.items():
            left_out.add_metric((run, file), n)
        yield left_out
    if found.time_s is not None:
        newest = GaugeMetricFamily(*NEWEST, labels=("run",))
        newest.add_metric((run,), found.time_s)
        yield newest


def _family(metric: m.Metric, run: str, series: list[Sample]) -> Metric:
    name, labels = PREFIX + metric.name, (*m.COMMON, *metric.labels)

    def values(sample: Sample) -> tuple[str, ...]:
        return (run, sample.role, *(value for _, value in sample.labels))

    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=labels)
        bounds = [*map(str, metric.buckets), "+Inf"]
        for sample in series:
            histogram.add_metric(values(sample), list(zip(bounds, sample.buckets, strict=True)), sample.value)
        return histogram
    family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(name, metric.help, labels=labels)
    for sample in series:
        family.add_metric(values(sample), sample.value)
    return family
