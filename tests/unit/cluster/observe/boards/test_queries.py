"""Every query of the boards, answered by Prometheus' own engine over seeded series with decoys (Marin's way).

A mutant is a query without one of its label matchers. Each has to give another answer than the query in at least one world:
otherwise the matcher does nothing, or the seeds are blind to it.
"""

import math
import re

import pytest

from cluster.observe.boards.boards import BOARDS
from cluster.observe.boards.panel import Panel
from protocol.metrics import CATALOGUE
from tests.promtool import BadQuery, check_rules, needs_promtool
from tests.unit.cluster.observe.boards.conftest import (
    QUERIES,
    SELECTOR,
    Answers,
    Mutant,
    fill,
    mutate,
    mutate_joined,
)

PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
SERIES = {series: metric for metric in CATALOGUE for series in metric.series}
NAMES = list(QUERIES)
ZERO = re.compile(r"vector\(0\)| or on \(\w+\) 0 \* max by")


def labels_of(series: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', series))


def legend_of(legend: str, series: str) -> str:
    """As Grafana writes it."""
    labels = labels_of(series)
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


def _says_the_same(mutant: Mutant, answers: Answers) -> bool:
    return all(world[mutant.expr] == world[mutant.whole] for world in answers.values())


@needs_promtool
@pytest.mark.parametrize("name", NAMES)
def test_dropping_any_one_label_matcher_changes_the_answer(name: str, answers: Answers) -> None:
    expr = fill(QUERIES[name].expr)
    mutants = mutate(expr)
    assert mutants
    alive = {m.without for m in mutants if _says_the_same(m, answers)}
    alive -= {m.without for m in mutate_joined(expr) if not _says_the_same(m, answers)}
    assert not alive, f"these matchers of {expr} change nothing: {sorted(alive)}"


@needs_promtool
@pytest.mark.parametrize("name", NAMES)
def test_a_query_has_an_answer_where_all_series_are_there(name: str, answers: Answers) -> None:
    answer = answers["alone"][fill(QUERIES[name].expr)]
    assert not isinstance(answer, BadQuery), answer
    assert answer, "no series"


@needs_promtool
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_run_gives_numbers_or_an_empty_graph(name: str, answers: Answers) -> None:
    """Counters and histograms have no series yet. What counts says 0."""
    for world in ("fresh", "gone"):
        answer = answers[world][fill(QUERIES[name].expr)]
        assert not isinstance(answer, BadQuery), answer
        assert all(isinstance(value, float) and math.isfinite(value) for value in answer.values()), answer
    if ZERO.search(QUERIES[name].expr):
        said = answers["fresh"][fill(QUERIES[name].expr)]
        assert not isinstance(said, BadQuery) and said and set(said.values()) == {0.0}, said


@pytest.mark.parametrize("name", NAMES)
def test_a_counter_that_is_shown_as_it_is_has_a_zero(name: str) -> None:
    """Its series begin with its first increment, so the query has to say 0 until then. What is divided stays empty."""
    expr = QUERIES[name].expr
    if " / " not in expr and all(SERIES[series].kind == "counter" for series, _ in SELECTOR.findall(expr)[:1]):
        assert ZERO.search(expr), expr


@needs_promtool
@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda value: getattr(value, "title", None))
def test_every_line_of_a_panel_has_a_legend_of_its_own(board: object, panel: Panel, answers: Answers) -> None:
    """With all players chosen. Each label in a legend is one that the query's series have."""
    legends: list[str] = []
    for query in panel.queries:
        answer = answers["alone"][fill(query.expr, player="attacker|defender")]
        assert not isinstance(answer, BadQuery), answer
        for series in answer:
            missing = set(re.findall(r"\{\{(\w+)\}\}", query.legend)) - set(labels_of(series))
            assert not missing, f"{query.legend}: {series} has no {missing}"
            legends.append(legend_of(query.legend, series))
    assert len(legends) == len(set(legends)), sorted(legends)


@pytest.mark.parametrize("name", NAMES)
def test_every_selector_names_the_run_and_the_player_where_it_has_one(name: str) -> None:
    selectors = SELECTOR.findall(QUERIES[name].expr)
    assert selectors
    assert len(selectors) == len(re.findall(r"\bray_\w+", QUERIES[name].expr)), "a series without a selector"
    for series, matchers in selectors:
        metric = SERIES[series]
        assert 'run="$run"' in matchers
        if "player" in metric.labels:
            assert 'player=~"$player"' in matchers
        if "pool" in metric.labels:
            assert 'pool=~"$player|judge"' in matchers


@needs_promtool
def test_prometheus_parses_every_query(tmp_path: object) -> None:
    assert check_rules([fill(query.expr) for query in QUERIES.values()], tmp_path) == ""  # type: ignore[arg-type]


@needs_promtool
def test_a_query_that_prometheus_cannot_parse_is_told(tmp_path: object) -> None:
    assert "parse error" in check_rules(["sum(ray_x{"], tmp_path)  # type: ignore[arg-type]
