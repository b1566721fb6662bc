"""The report's tables, as Markdown lines. Pure."""

import math
from collections.abc import Sequence

from cluster.measure.intervals import Interval
from cluster.study.compare import mean_of, mean_over_seeds, start_by_seed
from cluster.study.figures import BASE, METRICS, POOLED_COMPLIANCE, POOLED_SUCCESS, Metric, Study
from cluster.study.pooled import against, attackers_of, pooled
from cluster.study.variants import BY_NAME

POOLED = (POOLED_SUCCESS, POOLED_COMPLIANCE)


def percent(interval: Interval | None) -> str:
    """A fraction as per cent with its interval; a dash where nothing was measured."""
    if interval is None:
        return "-"
    if math.isinf(interval.high):
        return f"{100 * interval.value:.1f} (one seed)"
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def amount(interval: Interval | None) -> str:
    """Seconds or a count, rounded to whole ones."""
    if interval is None:
        return "-"
    if math.isinf(interval.high):
        return f"{interval.value:.0f} (one seed)"
    return f"{interval.value:.0f} [{interval.low:.0f}, {interval.high:.0f}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
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
    return table(["", "seeds", *(metric.title for metric in METRICS)], rows)


def costs(study: Study) -> list[str]:
    """What each variant took: updates, games, seconds."""
    rows = []
    for variant in study.variants:
        runs = study.counted(variant.name)
        updates = " / ".join(str(steps) for steps in runs[0].steps.values()) if runs else "-"
        games, seconds = mean_of([r.games for r in runs]), mean_of([r.wall_s for r in runs])
        rows.append([variant.label, updates, amount(games), amount(seconds)])
    return table(["", "updates (attacker / defender)", "games", "wall time, s"], rows)


def cross(study: Study) -> list[str]:
    """Attack success, Defenders by Attackers: means over seeds, and what the pool of the trained Attackers does to each."""
    attackers = attackers_of(study)
    rows = []
    for variant in study.variants:
        met = [against(study, variant.name, attacker) for attacker in attackers]
        cells = ["-" if i is None else f"{100 * i.value:.1f}" for i in met]
        rows.append([variant.label, *cells, *(percent(pooled(study, variant.name, metric)) for metric in POOLED)])
    names = ["base" if a == BASE else BY_NAME[a].label for a in attackers]
    return table(["Defender \\ Attacker", *names, *(metric.title for metric in POOLED)], rows)


def by_seed(study: Study, metric: Metric) -> list[str]:
    """One row a variant, one column a seed: per cent."""
    seeds = sorted({run.seed for run in study.runs})
    rows = []
    for variant in study.variants:
        values = {run.seed: run.value(metric) for run in study.counted(variant.name)}
        cells = [values.get(seed) for seed in seeds]
        rows.append([variant.label, *("-" if v is None else f"{100 * v:.1f}" for v in cells)])
    return table([metric.title, *(f"seed {seed}" for seed in seeds)], rows)
