"""docs/architecture.md names what is there: every path on the page exists, every room of the checkout is on the page."""

import re
import tomllib

import pytest

from tests.paths import DOCS, ROOT

PAGE = (DOCS / "architecture.md").read_text()
PATHS = sorted(set(re.findall(r"`((?:protocol|judge|actors|learners|cluster|deploy|tests)/[\w./*-]*)`", PAGE)))
CHANGES = [line for line in PAGE.split("## Where do I change ...")[1].splitlines() if line.startswith("| ")][1:]


def drawn_layers() -> list[set[str]]:
    """The rooms as the page draws them, from top to bottom."""
    drawing = PAGE.split("## The rooms of `cluster/`")[1].split("```")[1]
    return [set(line.split()) for line in drawing.splitlines() if line.strip()]


@pytest.mark.parametrize("path", PATHS)
def test_every_path_on_the_page_exists(path: str) -> None:
    assert list(ROOT.glob(path)), path


def test_every_room_is_on_the_page_and_every_row_on_it_is_a_room() -> None:
    rooms = {path.name for path in (ROOT / "cluster").iterdir() if (path / "__init__.py").is_file()}
    described = set(re.findall(r"^\| `cluster/(\w+)/` \|", PAGE, re.M))
    assert rooms == described == set().union(*drawn_layers())
    assert {p.name for p in (ROOT / "cluster").glob("*.py")} == {
        *("__init__.py", "__main__.py"),
        *("calls.py", "commit.py", "console.py", "exits.py", "rundir.py", "waiting.py"),
    }, "what stands beside the rooms is shared by all of them"


def test_the_drawing_is_what_import_linter_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c.get("containers") == ["cluster"])
    assert [set(layer.replace("|", " ").split()) for layer in layers] == drawn_layers()


def test_there_are_fifteen_likely_changes_each_with_its_file_and_its_test() -> None:
    assert len(CHANGES) >= 15
    for change in CHANGES:
        _, _, where, test, _ = change.split("|")
        assert re.search(r"`[\w./-]+`", where), change
        assert re.search(r"`tests/[\w./-]+\.py`", test), change
