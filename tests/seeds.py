"""Series for every metric of the catalogue, with decoys: for each label, series that differ in it alone and have other values.

The chosen run is `RUN`, the chosen player `PLAYER`. What a query gives is to depend on every label that it names, so decoys are
both far larger and far smaller than what they stand beside: neither sum nor minimum nor maximum is blind to them.
"""

import hashlib
import itertools
import re
from collections.abc import Collection, Iterator

from protocol.metrics import CATALOGUE, PHASE, PREFIX, PROCESS_START, Metric
from tests.promtool import SAMPLES, STEP_S, Seed, World

RUN, PLAYER = "this", "attacker"
RUNS = {RUN: 1.0, "small": 0.3, "large": 3.0}  # names, and how large their values are
DECOYS = {"zz-small": 0.3, "zz-large": 3.0}  # of every label that is not a player or a role: values that nobody knows


def seed_metric(metric: Metric, named: Collection[str] = ()) -> Iterator[Seed]:
    """A metric's series in all runs.

    Args:
        named: values of open labels to seed besides those that the catalogue knows.
    """
    choices: list[dict[str, float]] = [RUNS, {f"{metric.part}-{k}": 1.0 for k in range(2)}]
    for label in metric.labels:
        known = (*(metric.known(label) or ()), *(v for sound, values in metric.sound if sound == label for v in values))
        values = dict.fromkeys((*known, *named), 1.0)
        choices.append(values if label == "player" else values | DECOYS)
    for combination in itertools.product(*(choice.items() for choice in choices)):
        labels = dict(zip(("run", "role", *metric.labels), (value for value, _ in combination), strict=True))
        size = 1.0
        for _, factor in combination:
            size *= factor
        yield from _seed_series(metric, labels, size)


def _seed_series(metric: Metric, labels: dict[str, str], size: float) -> Iterator[Seed]:
    name, value = PREFIX + metric.name, size * (1 + _spread(metric.name, labels))
    if metric.kind == "histogram":
        total = 0.0
        for bound in (*(f"{b:g}" for b in metric.buckets), "+Inf"):
            weight = _spread(metric.name, labels | {"le": bound}) ** 4  # uneven, so that quantiles differ
            total += size * (weight if bound != "+Inf" else weight / 1000)  # quantiles end at the last bound
            yield _seed(f"{name}_bucket", labels | {"le": bound}, total, total)
        yield _seed(f"{name}_sum", labels, value * 7, value * 7)
        yield _seed(f"{name}_count", labels, total, total)
    elif metric is PHASE:  # each role is in one phase
        yield _seed(name, labels | {"role": f"{labels['role']}-{labels['phase']}"}, 1.0)
    elif metric is PROCESS_START:  # the last minute before queries are evaluated
        yield _seed(name, labels, STEP_S * (SAMPLES - 1) - 60 + value)
    elif metric.kind == "gauge":
        yield _seed(name, labels, value, -value / SAMPLES / 4)
    else:
        yield _seed(name, labels, value, value)


def _seed(name: str, labels: dict[str, str], start: float, slope: float = 0.0) -> Seed:
    return Seed(name, tuple(labels.items()), start, slope)


def _spread(name: str, labels: dict[str, str]) -> float:
    """A number from 0 to 1 that is always the same for a series, and another one for every series."""
    digest = hashlib.blake2b(repr((name, sorted(labels.items()))).encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def make_worlds(exprs: Collection[str]) -> dict[str, World]:
    """The same series with something missing in each world; what the expressions name of open labels is among them.

    full: nothing. fresh: the run has gauges alone, as at its start. gone: only other runs are there. other: the chosen player has
    no series. unnamed: the run has only label values that no expression names. alone: nothing but the run.
    """
    named = {
        metric.name: {
            value
            for expr in exprs
            for inside in re.findall(rf"\b{PREFIX}{metric.name}\{{([^}}]*)\}}", expr)
            for label, wanted in re.findall(r'(\w+)[=!]~?"([^"]*)"', inside)
            for value in wanted.split("|")
            if label in metric.labels and metric.known(label) is None and label != "player"
        }
        for metric in CATALOGUE
    }
    literals = {value for expr in exprs for value in re.findall(r'\w+[=!]=?"([\w-]+)"', expr)}
    full = [(metric, seed) for metric in CATALOGUE for seed in seed_metric(metric, named[metric.name])]
    chosen = {id(seed) for _, seed in full if ("run", RUN) in seed.labels}
    return {
        "full": tuple(seed for _, seed in full),
        "fresh": tuple(s for metric, s in full if id(s) not in chosen or metric.kind == "gauge"),
        "gone": tuple(s for _, s in full if id(s) not in chosen),
        "other": tuple(s for _, s in full if id(s) not in chosen or ("player", PLAYER) not in s.labels),
        "unnamed": tuple(
            s
            for _, s in full
            if id(s) not in chosen or not literals & {v for k, v in s.labels if k not in ("run", "player")}
        ),
        "alone": tuple(s for _, s in full if id(s) in chosen),
    }
