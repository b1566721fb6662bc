"""Selectors of our series in PromQL, and whether, by the catalogue, a run without any fault is sure to have what they match."""

import re
from collections.abc import Callable, Iterator

from protocol.metrics import CATALOGUE, Metric

SELECTOR = re.compile(r'(?P<name>ray_advgame_\w+)(?:\{(?P<matchers>(?:[^}"]|"[^"]*")*)\})?')
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
BY_SERIES: dict[str, Metric] = {series: metric for metric in CATALOGUE for series in metric.series}
MATCHES: dict[str, Callable[[str, str], bool]] = {
    "=": lambda wanted, value: value == wanted,
    "!=": lambda wanted, value: value != wanted,
    "=~": lambda wanted, value: re.fullmatch(wanted, value) is not None,
    "!~": lambda wanted, value: re.fullmatch(wanted, value) is None,
}


def selectors_of(expr: str) -> Iterator[str]:
    """All selectors of our series in an expression."""
    yield from (found[0] for found in SELECTOR.finditer(expr))


def metric_of(selector: str) -> Metric:
    """Whose series it selects. Raises `KeyError` for a name that is not in the catalogue."""
    found = SELECTOR.fullmatch(selector)
    assert found is not None, selector
    return BY_SERIES[found["name"]]


def is_sure(selector: str) -> bool:
    """Whether every run without a fault has such a series.

    Not sure are metrics of GPUs, those with an `only`, and selectors that match none of the label values that are `sound`.
    """
    found, metric = SELECTOR.fullmatch(selector), metric_of(selector)
    assert found is not None
    if metric.gpu or metric.only:
        return False
    for label, operator, wanted in MATCHER.findall(found["matchers"] or ""):
        values = dict(metric.sound).get(label, metric.known(label))
        if values is not None and not any(MATCHES[operator](wanted, value) for value in values):
            return False
    return True
