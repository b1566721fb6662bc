"""PromQL over the catalogue (`protocol.metrics`): small pure functions, each of which gives the text of an expression.

- Every selector names the run, as a text: in a pattern, the dot of `qwen2.5` is any character, and another run's series come in.
  One whose series have a player, a pool or a side names the chosen player, too, as a pattern, for it may be all.
- A zero is shown where it is the truth. Ray has no series of a counter before its first increment (`Counter.inc(0)` raises), so
  what counts ends in `or vector(0)`; by player or pool it takes the zero from a gauge that every run has, so that it has the label.
- Whatever is divided, is divided by something above 0: before the first event a share has no value, and the graph is empty.

`$run` and `$player` are the boards' variables, `$__rate_interval` and `$__range` Grafana's own. Prometheus 2.42 understands it all.
"""

from collections.abc import Sequence

from protocol import metrics as m
from protocol.metrics import Metric

ALL_PLAYERS = "attacker|defender"  # what `$player` is where all are chosen
CHOSEN = {"player": "~$player", "pool": "~$player|judge"}  # matched without being asked, on series that have the label
ZEROS = {"player": m.BATCH_GAMES, "pool": m.WORKERS}  # gauges that every run has, from its start
RATE, RANGE = "$__rate_interval", "$__range"


def select(metric: Metric, end: str = "", **where: str) -> str:
    """The series of a metric that belong to the chosen run and player. Arguments and errors as `select_any`."""
    chosen = {label: how for label, how in CHOSEN.items() if label in metric.labels}
    return select_any(metric, end, **({"run": "$run"} | chosen | where))


def select_any(metric: Metric, end: str = "", **where: str) -> str:
    """The series of a metric, of any run and player.

    Args:
        end: of a histogram: "bucket", "sum" or "count".
        where: values of its labels: "x", "!x" (another one), "~x|y" (one of these), "!~x|y" (none of these).

    Raises:
        ValueError: it has no such label, or the label never has that value.
    """
    if (metric.kind == "histogram") != bool(end):
        raise ValueError(f"{metric.name} is a {metric.kind}: end {end!r} does not fit")
    matchers = []
    for label, how in where.items():
        if label not in (*metric.labels, *m.COMMON):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {label!r}")
        known = metric.known(label)
        wanted = how.lstrip("!~").split("|")
        if known is not None and not all(value in known or value.startswith("$") for value in wanted):
            raise ValueError(f"{metric.name}: {label} is one of {known}, not {how!r}")
        matchers.append(_match(label, how))
    name = f"{m.PREFIX}{metric.name}{'_' * bool(end)}{end}"
    return f"{name}{{{','.join(matchers)}}}" if matchers else name


def _match(label: str, how: str) -> str:
    for sign, operator in (("!~", "!~"), ("~", "=~"), ("!", "!="), ("", "=")):
        if how.startswith(sign):
            return f'{label}{operator}"{how.removeprefix(sign)}"'
    raise AssertionError("unreachable: every text starts with the empty one")


def aggregate(how: str, expr: str, by: Sequence[str] = ()) -> str:
    """`how` is "sum", "max", "min" or "avg"."""
    return f"{how} by ({', '.join(by)}) ({expr})" if by else f"{how}({expr})"


# -- gauges ----------------------------------------


def gauge(metric: Metric, how: str, by: Sequence[str] = (), **where: str) -> str:
    """A gauge over the processes that set it."""
    return aggregate(how, select(metric, **where), by)


def decode(metric: Metric, label: str, values: Sequence[str], by: Sequence[str]) -> str:
    """Of a gauge that is 1 for one value of a label and 0 for its others: that value's place in `values`, from 0."""
    return " or ".join(f"{k} * ({gauge(metric, 'max', by, **{label: value})} == 1)" for k, value in enumerate(values))


# -- counters ----------------------------------------


def or_zero(expr: str, by: Sequence[str] = ()) -> str:
    """Zero in place of nothing. `by`: the labels of `expr`."""
    for label, metric in ZEROS.items():
        if label in by:
            return f"{expr} or on ({label}) 0 * {gauge(metric, 'max', (label,))}"
    if by:
        return f'{expr} or on () label_replace(vector(0), "{by[0]}", "none", "", "")'
    return f"{expr} or vector(0)"


def raw_rate(metric: Metric, by: Sequence[str] = (), end: str = "", how: str = "sum", **where: str) -> str:
    """What a counter gains a second, nothing before its first increment. For what is divided or multiplied."""
    return aggregate(how, f"rate({select(metric, end, **where)}[{RATE}])", by)


def rate(metric: Metric, by: Sequence[str] = (), end: str = "", how: str = "sum", **where: str) -> str:
    """What a counter gains a second; `how` is over its processes: "avg" of seconds a second is a share of their time."""
    return or_zero(raw_rate(metric, by, end, how, **where), by)


def per_minute(metric: Metric, by: Sequence[str] = (), **where: str) -> str:
    """What a counter gains a minute."""
    return or_zero(f"60 * {raw_rate(metric, by, **where)}", by)


def count(metric: Metric, by: Sequence[str] = (), **where: str) -> str:
    """What a counter of rare events has counted, processes that have ended since included.

    Not `increase`: Ray's first sample of a counter is its first increment, which `increase` never sees. A process that is started
    anew has series of its own; the highest value of each is what it counted, and their sum what all did. Where the new process goes
    on from the old one's total (the replay buffer's journal, the API judge's ledger), it is the highest of all.
    """
    how = "max" if metric.part == "replay" or metric is m.JUDGE_COST else "sum"
    return or_zero(aggregate(how, f"max_over_time({select(metric, **where)}[{RANGE}])", by), by)


def divide(part: str, whole: str) -> str:
    """A quotient; nothing while `whole` is 0, zero where only `part` is missing."""
    return f"{part} / ({whole} > 0) or 0 * ({whole} > 0)"


def share(metric: Metric, by: Sequence[str] = (), **where: str) -> str:
    """The share that increments of a counter with these labels have in all of its increments."""
    return divide(raw_rate(metric, by, **where), raw_rate(metric, by))


def shares(metric: Metric, label: str, by: Sequence[str] = (), **where: str) -> str:
    """`share` of every value that a label has, at once."""
    whole = raw_rate(metric, by, **where)
    return f"{raw_rate(metric, (*by, label), **where)} / on ({', '.join(by)}) group_left () ({whole} > 0)"


# -- histograms ----------------------------------------


def quantile(q: float, metric: Metric, by: Sequence[str] = (), **where: str) -> str:
    """A quantile of a histogram, estimated within its bucket."""
    return f"histogram_quantile({q:g}, {raw_rate(metric, ('le', *by), 'bucket', **where)})"


def mean(metric: Metric, by: Sequence[str] = (), **where: str) -> str:
    """A histogram's mean."""
    return f"{raw_rate(metric, by, 'sum', **where)} / ({raw_rate(metric, by, 'count', **where)} > 0)"


def heat(metric: Metric, **where: str) -> str:
    """A histogram's buckets, for a heat map."""
    return aggregate("sum", f"increase({select(metric, 'bucket', **where)}[{RATE}])", ("le",))
