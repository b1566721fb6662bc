"""The study's figure: attack success against benign compliance, a point for a run, a cross for a variant, the Pareto front.

One panel is by the base attacker's attacks; where cross-play was measured, another is by the pooled trained attackers'. The
starting models are in the title: as points they would press all others into a corner.
"""

import io
from collections.abc import Callable
from typing import Any

from cluster.study.compare import Place, mean_of, pareto_front, start_by_seed
from cluster.study.figures import (
    BASE_SUCCESS,
    COMPLIANCE,
    POOLED_COMPLIANCE,
    POOLED_SUCCESS,
    Metric,
    Study,
    values_by_seed,
)
from cluster.study.pooled import pooled_by_seed
from cluster.study.variants import VARIANTS

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")  # Okabe and Ito: no red against green
MARKERS = ("o", "s", "^", "D", "v", "P")

Panel = tuple[Metric, Metric]  # attack success, benign compliance
BySeed = Callable[[str, Metric], dict[int, float]]  # a variant's metric


def draw(study: Study) -> str:
    """The figure as SVG text. The same study gives the same text."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    panels: list[tuple[Panel, BySeed]] = [
        ((BASE_SUCCESS, COMPLIANCE), lambda variant, metric: values_by_seed(study.counted(variant), metric))
    ]
    if study.faced:
        pooled = ((POOLED_SUCCESS, POOLED_COMPLIANCE), lambda variant, metric: pooled_by_seed(study, variant, metric))
        panels.append(pooled)
    with pyplot.rc_context({"svg.hashsalt": "study", "svg.fonttype": "none", "font.size": 9}):
        figure, grid = pyplot.subplots(
            1, len(panels), figsize=(5.2 * len(panels), 4.6), layout="constrained", squeeze=False
        )
        for axes, (panel, by_seed) in zip(grid[0], panels, strict=True):
            _draw_panel(axes, panel, by_seed)
        figure.suptitle(_title(study), fontsize=9)
        if grid[0][0].get_legend_handles_labels()[0]:
            figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        sink = io.BytesIO()
        figure.savefig(sink, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return sink.getvalue().decode()


def _title(study: Study) -> str:
    before = [start_by_seed(study, metric.key) for metric in (BASE_SUCCESS, COMPLIANCE)]
    success, compliance = (mean_of(list(values.values())) for values in before)
    if success is None or compliance is None:
        return "no run finished"
    return (
        f"before training: attack success {100 * success.value:.0f} %, benign compliance {100 * compliance.value:.0f} %"
    )


def _draw_panel(axes: Any, panel: Panel, by_seed: BySeed) -> None:
    means = []
    for variant, colour, marker in zip(VARIANTS, COLOURS, MARKERS, strict=True):
        xs, ys = (by_seed(variant.name, metric) for metric in panel)
        seeds = sorted(xs.keys() & ys.keys())
        x, y = mean_of([100 * xs[s] for s in seeds]), mean_of([100 * ys[s] for s in seeds])
        if x is None or y is None:
            continue
        means.append(Place(variant.name, x.value, y.value))
        axes.scatter(
            [100 * xs[s] for s in seeds],
            [100 * ys[s] for s in seeds],
            color=colour,
            marker=marker,
            s=16,
            alpha=0.35,
            linewidths=0,
        )
        bars = {name: [[m.value - m.low], [m.high - m.value]] for name, m in (("xerr", x), ("yerr", y))}
        axes.errorbar(
            [x.value],
            [y.value],
            **(bars if len(seeds) > 1 else {}),  # one seed has no interval
            color=colour,
            marker=marker,
            markersize=6,
            capsize=2.5,
            linewidth=1.0,
            label=variant.label,
        )
    front = pareto_front(means)
    if front:
        x_front, y_front = [p.attack_success for p in front], [p.benign_compliance for p in front]
        axes.plot(
            x_front, y_front, color="black", linestyle="--", linewidth=0.9, zorder=0, label="Pareto front of the means"
        )
    axes.set_xlabel(f"{panel[0].title}, %")
    axes.set_ylabel(f"{panel[1].title}, %")
    axes.grid(alpha=0.25)
