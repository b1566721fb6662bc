"""The catalogue keeps Prometheus' conventions, and labels are checked."""

import re

import pytest

from protocol import metrics
from protocol.meter import check_labels
from protocol.metrics import CATALOGUE, Metric

BASE_UNITS = {"seconds": "_seconds", "bytes": "_bytes", "ratio": "_ratio", "nats": "_nats"}


def test_every_name_is_there_once() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names)) > 60


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda m: m.name)
def test_names_say_type_and_unit(metric: Metric) -> None:
    assert re.fullmatch(r"advgame_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    base = metric.name.removesuffix("_total")
    assert [unit for unit, end in BASE_UNITS.items() if base.endswith(end)] == [u for u in (metric.unit,) if u != "1"]
    assert not re.search(r"_(gauge|counter|histogram|summary|count|sum|bucket)\b", metric.name)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda m: m.name)
def test_an_entry_is_whole(metric: Metric) -> None:
    assert (metric.help.endswith(".") and metric.help[0].isupper()) or metric.help[0].isdigit()
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets) and all(bound > 0 for bound in metric.buckets)
    assert "version" not in metric.labels, "a version is a value"
    assert not set(metric.labels) & set(metrics.COMMON)
    for label, values in (*metric.values, *metric.sound):
        assert label in metric.labels
        assert set(values) <= set(metric.known(label) or values)


def test_labels_are_the_metrics_own() -> None:
    check_labels(metrics.ROWS, {"player": "attacker", "outcome": "tie"})
    check_labels(metrics.PHASE, {"phase": "ready", "role": "judge-0"})
    with pytest.raises(ValueError, match="has the labels"):
        check_labels(metrics.ROWS, {"player": "attacker"})
    with pytest.raises(ValueError, match="player is one of"):
        check_labels(metrics.ROWS, {"player": "judge", "outcome": "tie"})
