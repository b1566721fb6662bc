"""Pieces of PromQL for alerts, which speak of every run at once.

Pure. `cluster.observe.promql` makes the selectors, so that a name or a label that the catalogue does not know is an error here, not
an alert that sleeps. What the pieces must cope with: Ray's counters cannot be seeded with 0, so a rare one begins at its first
event; a gauge goes about 20 s after its process; every process has series of its own, so a restarted one begins anew.
"""

from cluster.observe.promql import aggregate, select_any
from protocol.metrics import Metric


def select(metric: Metric, **where: str) -> str:
    """A selector. Arguments and errors as `promql.select_any`."""
    return select_any(metric, **where)


def buckets(metric: Metric) -> str:
    """The selector of a histogram's buckets. Raises `ValueError` if it is none."""
    return select_any(metric, "bucket")


def mean(metric: Metric, by: str, window: str) -> str:
    """A histogram's mean over a window, as in "15m" or "6h offset 15m". Raises `ValueError` if it is none."""
    parts = (select_any(metric, end) for end in ("sum", "count"))
    return " / ".join(_sum(_over("rate", part, window), by) for part in parts)


def quantile(share: float, metric: Metric, by: str, window: str) -> str:
    """A histogram's quantile over a window; at most its largest bound."""
    return f"histogram_quantile({share:g}, {_sum(_over('rate', buckets(metric), window), f'{by}, le')})"


def increase(selector: str, by: str, window: str) -> str:
    """By how much a counter that counts all the time rose in a window."""
    return _sum(_over("increase", selector, window), by)


def events(selector: str, by: str, window: str) -> str:
    """How many rare events a counter counted in a window: of a series that is younger than the window, all of them."""
    return _sum(f"({selector} unless {selector} offset {window}) or {_over('increase', selector, window)}", by)


def _sum(expr: str, by: str) -> str:
    return aggregate("sum", expr, (by,))


def _over(function: str, selector: str, window: str) -> str:
    window, _, offset = window.partition(" ")
    return f"{function}({selector}[{window}]{' ' + offset if offset else ''})"
