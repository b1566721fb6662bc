"""The page of the benchmarks: figures between markers, each with where it comes from."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import MODULES
from tests.benchmarks.harness import Result, amount
from tests.benchmarks.page import FIGURES, Origin, fill, table_of, update_page
from tests.paths import DOCS, ROOT

OLD = Origin("2026-01-02", "aaa", "two cores", "ray 1")
NEW = Origin("2026-03-04", "bbb", "four cores", "ray 2")
PAGE = "# Benchmarks\n\nabove\n\n<!-- figures: generated -->\nold\n<!-- figures: end -->\n\nbelow\n"


def result(name: str, ours: float = 1.0, target: float | None = 2.0, other: float | None = None) -> Result:
    return Result(name, ours, other, "s", target, False, f"note of {name}")


def test_only_what_is_between_the_markers_changes() -> None:
    text = fill(PAGE, FIGURES, ["| a |", "| b |"])
    assert text == PAGE.replace("\nold\n", "\n\n| a |\n| b |\n\n")
    assert fill(text, FIGURES, ["| a |", "| b |"]) == text


@pytest.mark.parametrize("wrong", ["no markers", PAGE + PAGE, PAGE.replace("end", "End")])
def test_a_page_without_one_pair_of_markers_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        fill(wrong, FIGURES, [])


def test_a_line_says_whether_its_target_is_met_and_where_it_was_measured() -> None:
    lines = table_of({"a": (OLD, [result("good"), result("bad", 3.0), result("free", target=None)]), "b": (NEW, [])})
    assert lines[2] == "| `good` | 1 | - | s | - | - | <= 2 | yes | note of good | 2026-01-02, aaa |"
    assert "| <= 2 | **no** |" in lines[3] and "| - | - | note of free |" in lines[4]
    assert "- 2026-01-02, aaa: two cores; ray 1 (a)." in lines
    assert table_of({"a": (OLD, [result("x", 3.0, 4.0, other=2.0)])})[2].startswith(
        "| `x` | 3 | 2 | s | 1.500 | - | <= 4 |"
    )


def test_what_an_earlier_commit_measured_stands_beside_it(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(PAGE)
    update_page(page, {"a": [result("x", 3.0, other=2.0), result("y", 7.0), result("old")]}, OLD, ["a"])
    (tmp_path / "benchmarks.json").rename(tmp_path / "benchmarks-before.json")
    update_page(page, {"a": [result("x", 4.0, other=2.0), result("y", 6.0), result("new")]}, NEW, ["a"])
    text = page.read_text()
    assert "| `x` | 4 | 2 | s | 2.000 | 1.500 |" in text and "| `y` | 6 | - | s | - | 7 |" in text
    assert "| `new` | 1 | - | s | - | - |" in text and "`old`" not in text
    assert "- before: 2026-01-02, aaa: two cores; ray 1 (a)." in text


def test_one_benchmark_replaces_its_own_lines_and_leaves_the_others(tmp_path: Path) -> None:
    page, order = tmp_path / "benchmarks.md", ["b", "a"]
    page.write_text(PAGE)
    update_page(page, {"a": [result("a-line")], "b": [result("b-line")], "gone": [result("gone-line")]}, OLD, order)
    update_page(page, {"a": [result("a-new")]}, NEW, order)
    text = page.read_text()
    assert "gone-line" not in text and "a-line" not in text
    assert text.index("| `b-line`") < text.index("| `a-new`")
    assert "note of b-line | 2026-01-02, aaa |" in text and "note of a-new | 2026-03-04, bbb |" in text
    assert set(json.loads((tmp_path / "benchmarks.json").read_text())) == {"a", "b"}


def test_amounts_have_four_digits_and_no_exponent() -> None:
    assert [amount(v) for v in (0.06789, 4.5, 654.19, 1716.6, 1_234_567.0)] == [
        "0.06789",
        "4.5",
        "654.2",
        "1,717",
        "1,234,567",
    ]


def test_a_result_without_a_target_misses_none() -> None:
    assert result("x", 1e9, target=None).ok and not result("x", 3.0).ok


def test_every_benchmark_is_explained_on_the_page_and_linked_from_the_readme() -> None:
    page = (DOCS / "benchmarks.md").read_text()
    explained = {line.split("`")[1] for line in page.splitlines() if line.startswith("### `")}
    assert explained == {*MODULES, "synchronous"}
    for name in (FIGURES, "synchronous"):
        fill(page, name, [])  # the markers are there
    assert "docs/benchmarks.md" in (ROOT / "README.md").read_text()
