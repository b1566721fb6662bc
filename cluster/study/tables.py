"""The report's tables, as Markdown lines. Pure."""

import math
from collections.abc import Sequence

from cluster.measure.intervals import Interval
from cluster.study.compare import mean_of, mean_over_seeds, start_by_seed
from cluster.study.figures import BASE, METRICS, POOLED_COMPLIANCE, POOLED_SUCCESS, Metric, Study
from cluster.study.pooled import attackers_of, mean_success, pooled_mean
from cluster.study.variants import BY_NAME

POOLED = (POOLED_SUCCESS, POOLED_COMPLIANCE)


def percent(interval: Interval | None) -> str:
    """A fraction as per cent with its interval; a dash where nothing was measured."""
    return _with_interval(interval, 100, 1)


def amount(interval: Interval | None) -> str:
    """Seconds or a count, rounded to whole ones."""
    return _with_interval(interval, 1, 0)


def _with_interval(interval: Interval | None, scale: float, digits: int) -> str:
    if interval is None:
        return "-"
    value, low, high = (f"{scale * x:.{digits}f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} (one seed)" if math.isinf(interval.high) else f"{value} [{low}, {high}]"


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def results(study: Study) -> list[str]:
    """One row before training, one a variant after it: per cent of held-out responses."""
    before = [percent(mean_of(list(start_by_seed(study, metric.key).values()))) for metric in METRICS]
    before[1] = "-"  # nobody is trained at the start
    rows = [["before training", "", *before]]
    for variant in study.variants:
        runs = study.counted(variant.name)
        means = [percent(mean_over_seeds(study, variant.name, metric)) for metric in METRICS]
        rows.append([variant.label, str(len(runs)), *means])
    return make_table(["", "seeds", *(metric.title for metric in METRICS)], rows)


def costs(study: Study) -> list[str]:
    """What each variant took: updates, games, seconds."""
    rows = []
    for variant in study.variants:
        runs = study.counted(variant.name)
        updates = " / ".join(str(steps) for steps in runs[0].steps.values()) if runs else "-"
        games, seconds = mean_of([r.games for r in runs]), mean_of([r.wall_s for r in runs])
        rows.append([variant.label, updates, amount(games), amount(seconds)])
    return make_table(["", "updates (attacker / defender)", "games", "wall time, s"], rows)


def cross(study: Study) -> list[str]:
    """Attack success, Defenders by Attackers: means over seeds, and what the pool of the trained Attackers does to each."""
    attackers = attackers_of(study)
    rows = []
    for variant in study.variants:
        met = [mean_success(study, variant.name, attacker) for attacker in attackers]
        cells = ["-" if i is None else f"{100 * i.value:.1f}" for i in met]
        rows.append([variant.label, *cells, *(percent(pooled_mean(study, variant.name, metric)) for metric in POOLED)])
    names = ["base" if a == BASE else BY_NAME[a].label for a in attackers]
    return make_table(["Defender \\ Attacker", *names, *(metric.title for metric in POOLED)], rows)


def by_seed(study: Study, metric: Metric) -> list[str]:
    """One row a variant, one column a seed: per cent."""
    seeds = sorted({run.seed for run in study.runs})
    rows = []
    for variant in study.variants:
        values = {run.seed: run.value(metric) for run in study.counted(variant.name)}
        cells = [values.get(seed) for seed in seeds]
        rows.append([variant.label, *("-" if v is None else f"{100 * v:.1f}" for v in cells)])
    return make_table([metric.title, *(f"seed {seed}" for seed in seeds)], rows)
