"""What a board is: rows of panels, each with queries and words. Pure data; `boards.grafana` makes Grafana's JSON of it."""

import re
from dataclasses import dataclass
from typing import Literal

from protocol.metrics import CATALOGUE, Metric

View = Literal["lines", "stack", "stat", "heat", "states"]
Color = Literal["green", "yellow", "orange", "red", "blue", "purple", "gray"]

COUNT, SHARE, SECONDS, BYTES, BYTES_A_SECOND = "short", "percentunit", "s", "bytes", "Bps"  # Grafana's names of units


def per(what: str) -> str:
    """A unit that Grafana does not know, written behind the number: "games/min"."""
    return f"suffix:{what}"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression.

    Attributes:
        expr: PromQL with the boards' variables.
        legend: of each of its series, with `{{label}}` for the labels.
        limit: drawn as a dashed line: what the others must not pass, or are to reach.
    """

    expr: str
    legend: str
    limit: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        what: is shown.
        read: how to read it: what is good, what is bad, what to do then.
        unit: Grafana's name of it.
        view: "stack": areas on each other; "stat": the newest value; "heat": a histogram over time; "states": coloured spans.
        width: of 24 columns; `height`: in rows of Grafana's grid.
        steps: thresholds: from this value on, this colour; the first one's value is None.
        low, high: of the axis.
        log: whether the axis is logarithmic.
        interval: the shortest step, for what happens seldom; empty: the source's.
        names: of "states" and "stat": what the values 0, 1, ... are called, and their colours.
        decimals: shown; None: Grafana's choice.
    """

    title: str
    what: str
    read: str
    unit: str
    queries: tuple[Query, ...]
    view: View = "lines"
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float | None, Color], ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False
    interval: str = ""
    names: tuple[tuple[str, Color], ...] = ()
    decimals: int | None = None

    @property
    def description(self) -> str:
        """As the panel's tooltip says it."""
        return f"{self.what}\n\n**How to read it:** {self.read}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Those that its queries show; a gauge that only lends its labels to a zero (`promql.or_zero`) is not shown."""
        shown = [re.sub(r" or on \(\w+\) 0 \* .*", "", query.expr) for query in self.queries]
        selected = {name for expr in shown for name in re.findall(r"\bray_\w+", expr)}
        return tuple(metric for metric in CATALOGUE if selected & set(metric.series))


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One board. `uid` is its address and its file's name."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them."""
        return tuple(panel for row in self.rows for panel in row.panels)
