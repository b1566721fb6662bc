"""Grafana's JSON of a board, through Grafana's foundation SDK. The only module that knows the SDK: no run imports it.

The same board gives the same bytes: ids are counted, and no time or version of this machine is in it.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from cluster.observe.boards.boards import BOARDS, STARTS
from cluster.observe.boards.panel import Board, Panel, Query, View
from cluster.observe.promql import ALL_PLAYERS
from protocol import metrics as m
from protocol.metrics import PREFIX

SOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")
RAY_BOARDS = {  # by their fixed uids
    "Ray: cluster": "rayDefaultDashboard",
    "Ray: Train": "rayTrainDashboard",
    "Ray: vLLM engines": "rayDataLlmDashboard",
}
PLAYER_COLORS = {"attacker": "dark-orange", "defender": "blue"}  # the same on every panel
Builder = Any  # the SDK's panel builders share methods, but no type


def render(board: Board) -> str:
    """The file's text."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["advgame"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .editable()
        .with_variable(_choose_source())
        .with_variable(_choose_run())
        .with_variable(_choose_player())
        .annotation(_mark_starts())
    )
    for title, url in _links(board).items():
        made.link(
            dashboard.DashboardLink(title).type(d.DashboardLinkType.LINK).url(url).keep_time(True).target_blank(False)
        )
    number = 0
    for row in board.rows:
        number += 1
        made.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(_render_panel(panel).id(number))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _links(board: Board) -> dict[str, str]:
    """Titles and addresses: the other boards, for the same run and player, then Ray's."""
    chosen = "var-datasource=${datasource}"
    ours = {b.title: f"/d/{b.uid}?{chosen}&var-run=${{run}}&var-player=${{player}}" for b in BOARDS if b is not board}
    return ours | {title: f"/d/{uid}?{chosen}" for title, uid in RAY_BOARDS.items()}


# -- variables ----------------------------------------


def _choose_source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _choose_run() -> dashboard.QueryVariable:
    """One of the runs in the time shown; the last name first, which is the newest run where names end in a time."""
    return (
        dashboard.QueryVariable("run")
        .label("Run")
        .datasource(SOURCE)
        .query(f"label_values({PREFIX}{m.PROCESS_START.name}, run)")
        .refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(d.VariableSort.ALPHABETICAL_DESC)
        .multi(False)
    )


def _choose_player() -> dashboard.CustomVariable:
    return (
        dashboard.CustomVariable("player")
        .label("Player")
        .values(ALL_PLAYERS.replace("|", ","))
        .include_all(True)
        .all_value(ALL_PLAYERS)
        .current(d.VariableOption(selected=True, text="All", value="$__all"))
        .multi(False)
    )


def _mark_starts() -> dashboard.AnnotationQuery:
    """A mark on every graph where a part's process started."""
    return (
        dashboard.AnnotationQuery()
        .name("A part started")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("purple")
        .expr(STARTS.expr)
    )


# -- panels ----------------------------------------


def _render_panel(panel: Panel) -> Builder:
    make, finish = VIEWS[panel.view]
    builder = make()
    builder.title(panel.title).description(_describe(panel)).datasource(SOURCE)
    builder.span(panel.width).height(panel.height).unit(panel.unit)
    builder.targets([_render_query(k, query, panel.view == "heat") for k, query in enumerate(panel.queries)])
    if panel.interval:
        builder.interval(panel.interval)
    if panel.decimals is not None:
        builder.decimals(panel.decimals)
    if panel.low is not None:
        builder.min(panel.low)
    if panel.high is not None:
        builder.max(panel.high)
    if panel.steps:
        steps = [d.Threshold(value=value, color=color) for value, color in panel.steps]
        builder.thresholds(dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.names:
        builder.mappings([_name_values(panel.names)])
    if when := _when(panel):
        builder.no_value(f"Nothing yet: {when}")
    finish(builder, panel)
    return builder


def _describe(panel: Panel) -> str:
    when = _when(panel)
    return panel.description + (f"\n\n*Shown when {when}.*" if when else "")


def _when(panel: Panel) -> str:
    """When its series appear; empty: in every run."""
    if not all(metric.only or metric.gpu for metric in panel.metrics):
        return ""
    return ", or ".join(dict.fromkeys(metric.only or "the learner has GPUs" for metric in panel.metrics))


def _render_query(k: int, query: Query, heat: bool) -> prometheus.Dataquery:
    made = prometheus.Dataquery().ref_id(chr(ord("A") + k)).datasource(SOURCE).expr(query.expr).range()
    return made.legend_format(query.legend).format(PromQueryFormat.HEATMAP if heat else PromQueryFormat.TIME_SERIES)


def _name_values(names: Sequence[tuple[str, str]]) -> d.ValueMap:
    return d.ValueMap({str(k): d.ValueMappingResult(text, color, index=k) for k, (text, color) in enumerate(names)})


def _lines(builder: Builder, panel: Panel) -> None:
    builder.line_width(2).fill_opacity(8).show_points(c.VisibilityMode.NEVER)
    builder.color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    _show_legend(builder)
    if panel.log:
        builder.scale_distribution(common.ScaleDistributionConfig().type(c.ScaleDistribution.LOG).log(10))
    if panel.steps:
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED))
    for player, color in PLAYER_COLORS.items():
        builder.override_by_name(player, [_paint(color)])
    for k, query in enumerate(panel.queries):
        if query.limit:
            dashes = d.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]})
            flat = d.DynamicConfigValue("custom.fillOpacity", 0)
            builder.override_by_query(chr(ord("A") + k), [dashes, flat, _paint("red")])


def _stack(builder: Builder, panel: Panel) -> None:
    _lines(builder, panel)
    builder.line_width(0).fill_opacity(70).stacking(common.StackingConfig().mode(c.StackingMode.NORMAL))


def _stat(builder: Builder, panel: Panel) -> None:
    builder.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    builder.graph_mode(c.BigValueGraphMode.NONE if panel.names else c.BigValueGraphMode.AREA)
    builder.text_mode(c.BigValueTextMode.AUTO)
    colored = panel.steps or panel.names
    mode = d.FieldColorModeId.THRESHOLDS if colored else d.FieldColorModeId.FIXED
    color = dashboard.FieldColor().mode(mode)
    builder.color_scheme(color if colored else color.fixed_color("text"))
    builder.color_mode(c.BigValueColorMode.VALUE)


def _heat(builder: Builder, panel: Panel) -> None:
    builder.calculate(False)
    builder.y_axis(heatmap.YAxisConfig().unit(panel.unit))
    oranges = (
        heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").fill("dark-orange").steps(64)
    )
    builder.color(oranges.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5))
    builder.rows_frame(heatmap.RowsHeatmapOptions().layout(c.HeatmapCellLayout.LE))


def _states(builder: Builder, panel: Panel) -> None:
    builder.merge_values(True).show_value(c.VisibilityMode.NEVER).row_height(0.85)
    builder.color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.THRESHOLDS))
    _show_legend(builder, calcs=[])


def _show_legend(builder: Builder, calcs: Sequence[str] = ("lastNotNull",)) -> None:
    legend = common.VizLegendOptions().show_legend(True).placement(c.LegendPlacement.BOTTOM)
    builder.legend(legend.display_mode(c.LegendDisplayMode.LIST).calcs(list(calcs)))
    builder.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))


def _paint(color: str) -> d.DynamicConfigValue:
    return d.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})


VIEWS: dict[View, tuple[Builder, Callable[[Builder, Panel], None]]] = {
    "lines": (timeseries.Panel, _lines),
    "stack": (timeseries.Panel, _stack),
    "stat": (stat.Panel, _stat),
    "heat": (heatmap.Panel, _heat),
    "states": (statetimeline.Panel, _states),
}
