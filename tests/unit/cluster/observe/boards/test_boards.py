"""The boards' files: what is committed is what is made, everything measured is shown, and a person finds words on every panel."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from cluster.observe.boards.__main__ import make_files
from cluster.observe.boards.boards import BOARDS, panels_of
from cluster.observe.boards.grafana import RAY_BOARDS, render
from cluster.observe.boards.panel import Board, Panel
from protocol.metrics import CATALOGUE, Metric
from protocol.recipe.schema import RecipeFields
from tests.paths import ROOT
from tests.promtool import check_rules, needs_promtool
from tests.unit.cluster.observe.boards.conftest import fill

GRAFANA = ROOT / "deploy" / "grafana"
PANELS = [pytest.param(board, panel, id=f"{board.uid}/{panel.title}") for board in BOARDS for panel in board.panels]


def read(board: Board) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{board.uid}.json").read_text())
    return found


@pytest.mark.parametrize("path", make_files(), ids=str)
def test_what_is_committed_is_what_is_made(path: Path) -> None:
    assert (ROOT / path).read_text() == make_files()[path], f"run: python -m cluster.observe.boards (for {path})"


def test_nothing_else_lies_beside_the_boards() -> None:
    assert {p.name for p in (GRAFANA / "dashboards").iterdir()} == {f"{board.uid}.json" for board in BOARDS}


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_every_metric_is_on_a_panel_and_on_the_page(metric: Metric) -> None:
    assert panels_of(metric), f"no board shows {metric.name}"
    assert f"| `ray_{metric.name}` |" in (ROOT / "docs" / "metrics.md").read_text()


def test_a_gauge_that_only_lends_a_zero_its_label_is_not_shown_by_it() -> None:
    shown = [panel.title for _, panel in panels_of(next(x for x in CATALOGUE if x.name == "advgame_batch_games"))]
    assert shown == ["Games that wait for a step"]


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_has_words_a_unit_and_a_place(board: Board, panel: Panel) -> None:
    assert len(panel.what) > 20 and len(panel.read) > 40, "what it shows, and how to read it"
    assert panel.unit and panel.queries
    assert sum(other.title == panel.title for other in board.panels) == 1
    if panel.steps:
        values = [value for value, _ in panel.steps]
        assert values[0] is None and values[1:] == sorted(values[1:]), values  # type: ignore[type-var]
    made = next(p for p in read(board)["panels"] if p["title"] == panel.title)
    assert made["description"].startswith(panel.what) and "How to read it" in made["description"]
    assert made["fieldConfig"]["defaults"]["unit"] == panel.unit
    assert [target["expr"] for target in made["targets"]] == [query.expr for query in panel.queries]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in made["targets"])


def test_the_settings_that_panels_name_are_in_the_recipe() -> None:
    """`judge.alarm.window` and the like, each in a text that says what to do."""
    sections = "|".join(RecipeFields.model_fields)
    named = {
        key
        for board in BOARDS
        for p in board.panels
        for key in re.findall(rf"\b(?:{sections})\.[\w.]*\w", p.description)
    }
    assert len(named) > 10
    for key in named:
        at: Any = RecipeFields()
        for name in key.replace("PLAYER", "attacker").split("."):
            assert name in type(at).model_fields, f"{key}: no setting"
            at = getattr(at, name)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_fill_their_rows_and_do_not_lie_on_each_other(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in read(board)["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    rows = {y for _, y in taken}
    assert taken == {(x, y) for x in range(24) for y in rows} and rows == set(range(max(rows) + 1)), "a hole"
    ids = [panel["id"] for panel in read(board)["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_board_has_its_variables_and_links_to_the_others(board: Board) -> None:
    made = read(board)
    assert made["uid"] == board.uid
    variables = {variable["name"]: variable for variable in made["templating"]["list"]}
    assert list(variables) == ["datasource", "run", "player"]
    assert variables["player"]["allValue"] == "attacker|defender"
    assert not variables["run"]["multi"] and not variables["run"].get("includeAll"), "queries name one run"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(made)))
    assert used <= {*variables, "__rate_interval", "__range", "__all"}
    linked = {re.match(r"/d/(\w[\w-]*)", link["url"])[1] for link in made["links"]}  # type: ignore[index]
    assert linked == {*(b.uid for b in BOARDS), *RAY_BOARDS.values()} - {board.uid}
    assert {"rayDefaultDashboard", "rayTrainDashboard", "rayDataLlmDashboard"} <= linked


def test_the_boards_of_ray_that_ours_link_to_are_in_ray() -> None:
    shipped = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    uids = {json.loads(p.read_text()).get("uid") for p in shipped.glob("*_base.json")}
    assert set(RAY_BOARDS.values()) <= uids


@needs_promtool
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_prometheus_parses_what_is_in_the_files(board: Board, tmp_path: Path) -> None:
    made = read(board)
    exprs = [target["expr"] for panel in made["panels"] for target in panel.get("targets", ())]
    exprs += [mark["expr"] for mark in made["annotations"]["list"]]
    assert len(exprs) > 10
    assert check_rules(map(fill, exprs), tmp_path) == ""


def test_the_same_board_gives_the_same_bytes() -> None:
    assert [render(board) for board in BOARDS] == [render(board) for board in BOARDS]


def test_provisioning_reads_the_boards_from_where_the_readme_says() -> None:
    readme = (GRAFANA / "README.md").read_text()
    (ours, rays) = yaml.safe_load((GRAFANA / "provisioning/dashboards/advgame.yml").read_text())["providers"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/advgame.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    for setting in (ours["options"]["path"], rays["options"]["path"], source["url"]):
        name = re.fullmatch(r"\$\{(\w+)\}", setting)
        assert name and f"export {name[1]}=" in readme, setting
    assert "export ADVGAME_GRAFANA_BOARDS=$PWD/deploy/grafana/dashboards\n" in readme
    assert "export GF_PATHS_PROVISIONING=$PWD/deploy/grafana/provisioning\n" in readme


def test_no_file_of_ours_goes_to_the_folder_that_ray_empties() -> None:
    """Ray removes SESSION/metrics/grafana at each start: commands only read Ray's own configuration there."""
    for line in (GRAFANA / "README.md").read_text().splitlines():
        if line.startswith(("cp ", "export ", "mkdir ")):
            assert "session_latest" not in line, line
