"""`docs/benchmarks.md`: the figures between its markers, so that none is typed by hand. Pure, but for `update_page`.

The figures lie in a JSON file beside the page, by benchmark, each with its day, commit, machine and versions: a benchmark that
is run alone replaces its own lines and leaves the others with theirs. The text around the markers is people's. A second file of the
same form, `benchmarks-before.json`, holds the figures of an earlier commit, for the column `before`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Result, amount

FIGURES = "figures"  # the markers' name
Benchmarks = Mapping[str, tuple["Origin", Sequence[Result]]]


@dataclass(frozen=True)
class Origin:
    """Where figures come from."""

    day: str
    commit: str
    machine: str
    versions: str


def fill(text: str, name: str, lines: Sequence[str]) -> str:
    """The page with these lines between the markers of that name.

    Raises:
        ValueError: the page has not exactly one such pair of markers.
    """
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the page needs the lines {begin!r} and {end!r}, once and in this order")
    head, tail = text.partition(begin)[0], text.partition(end)[2]
    return "\n".join([head + begin, "", *lines, "", end]) + tail


def table_of(found: Benchmarks, before: Benchmarks | None = None) -> list[str]:
    """Markdown: a line a figure, then the machines that they were measured on.

    Args:
        before: the figures of an earlier commit; a line of the same name is shown beside today's.
    """
    then = {result.name: _figure(result) for _, results in (before or {}).values() for result in results}
    lines = [
        "| name | ours | other | unit | ratio | before | target | met | of | measured |",
        "|---|--:|--:|---|--:|--:|--:|---|---|---|",
    ]
    for origin, results in found.values():
        cells = [[*_cells(r, then.get(r.name, "-")), f"{origin.day}, {origin.commit}"] for r in results]
        lines += ["| " + " | ".join(line) + " |" for line in cells]
    now = [f"- {run} ({', '.join(names)})." for run, names in _runs(found).items()]
    return [*lines, "", *now, *(f"- before: {run} ({', '.join(names)})." for run, names in _runs(before or {}).items())]


def _runs(found: Benchmarks) -> dict[str, list[str]]:
    """The benchmarks of each checkout and machine."""
    runs: dict[str, list[str]] = {}
    for name, (origin, _) in found.items():
        runs.setdefault(f"{origin.day}, {origin.commit}: {origin.machine}; {origin.versions}", []).append(name)
    return runs


def _figure(r: Result) -> str:
    """What its target is about: the ratio, or the figure itself."""
    return amount(r.ours) if r.other is None else f"{r.ratio:.3f}"


def _cells(r: Result, before: str) -> list[str]:
    target = "-" if r.target is None else f"{'>=' if r.at_least else '<='} {r.target:g}"
    met = "-" if r.target is None else "yes" if r.ok else "**no**"
    ratio = "-" if r.other is None else f"{r.ratio:.3f}"
    other = "-" if r.other is None else amount(r.other)
    return [f"`{r.name}`", amount(r.ours), other, r.unit, ratio, before, target, met, r.note]


def merge(kept: Benchmarks, new: Benchmarks, order: Sequence[str]) -> Benchmarks:
    """Both, the new ones instead of the old; a benchmark that there is no more is left out."""
    both = {**kept, **new}
    return {name: both[name] for name in order if name in both}


def update_page(page: Path, new: Mapping[str, Sequence[Result]], origin: Origin, order: Sequence[str]) -> None:
    """Writes the figures into the page and into the JSON file beside it, each whole.

    Raises:
        ValueError: as `fill`.
    """
    data = page.with_suffix(".json")
    earlier = page.with_name(f"{page.stem}-before.json")
    kept, before = (_load(json.loads(f.read_text())) if f.is_file() else {} for f in (data, earlier))
    found = merge(kept, {name: (origin, results) for name, results in new.items()}, order)
    text = fill(page.read_text(), FIGURES, table_of(found, before))
    _write(data, json.dumps(_dump(found), indent=1) + "\n")
    _write(page, text)


def _dump(found: Benchmarks) -> dict[str, Any]:
    return {
        name: {"origin": asdict(o), "results": [asdict(r) for r in results]} for name, (o, results) in found.items()
    }


def _load(value: Mapping[str, Any]) -> Benchmarks:
    return {n: (Origin(**e["origin"]), [Result(**r) for r in e["results"]]) for n, e in value.items()}


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    partial.replace(path)
