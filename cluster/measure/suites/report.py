"""The results of an evaluation as people and programs read them: tables, `results.json`, `rows.parquet`, `attempts.parquet`.

The files are functions of what was asked and answered, and of nothing else: no time, no path, no order of arrival is in them.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from cluster.inputs.suites.suite import Suite
from cluster.measure.correction import JudgeErrors
from cluster.measure.intervals import CONFIDENCE, Interval
from cluster.measure.suites.attempts import Attempt
from cluster.measure.suites.table import PairedRow, Row
from protocol.files import write_file, write_json

VERSION = 1
ROWS = pa.schema(
    [(name, pa.string()) for name in ("model", "suite", "topic", "measure")]
    + [(name, pa.int64()) for name in ("k", "prompts", "counted", "attempts", "judged", "judge_failed", "no_answer")]
    + [("value", pa.float64())]
    + [(f"{name}_{end}", pa.float64()) for name in ("wilson", "bootstrap", "corrected") for end in ("low", "high")]
    + [("corrected", pa.float64())]
)
SCORES = ("compliance", "harmfulness", "refusal")
ATTEMPTS = pa.schema(
    [(name, pa.string()) for name in ("model", "suite", "item", "topic", "category")]
    + [("sample", pa.int64()), ("prompt", pa.string()), ("response", pa.string())]
    + [(name, pa.float64()) for name in SCORES]
    + [("why", pa.string())]
)


@dataclass(frozen=True, slots=True)
class Results:
    """All that came of an evaluation.

    Attributes:
        about: what was evaluated and how, as the journal's first line has it.
        suites: what was asked.
        attempts: by model, in the order of the models; responses: by model, suite, item and sample, what there is.
        rows, paired: the figures.
        errors: of the judge, by measure.
        warnings: in words.
        utility: lm-eval's results, by model.
    """

    about: Mapping[str, Any]
    suites: Sequence[Suite]
    attempts: Mapping[str, Sequence[Attempt]]
    responses: Mapping[tuple[str, str, str, int], str]
    rows: Sequence[Row]
    paired: Sequence[PairedRow]
    errors: Mapping[str, JudgeErrors] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    utility: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, int]:
        """Attempts without an answer or a verdict that another run of the same command would ask for, by reason."""
        found: dict[str, int] = {}
        for attempts in self.attempts.values():
            for attempt in attempts:
                if attempt.why.endswith(("not asked", "not judged")):
                    found[attempt.why] = found.get(attempt.why, 0) + 1
        return found


def write_results(results: Results, out: Path) -> None:
    """Writes the three files, each whole."""
    write_json(out / "results.json", as_json(results))
    write_file(out / "rows.parquet", _parquet([row.flatten() for row in results.rows], ROWS))
    write_file(out / "attempts.parquet", _parquet(_list_attempts(results), ATTEMPTS))


def as_json(results: Results) -> dict[str, Any]:
    """`results.json`."""
    return {
        "version": VERSION,
        "about": dict(results.about),
        "complete": not results.missing,
        "missing": results.missing,
        "warnings": list(results.warnings),
        "confidence": CONFIDENCE,
        "suites": [suite.as_dict() for suite in results.suites],
        "judge_errors": {name: errors.as_dict() for name, errors in results.errors.items()},
        "rows": [row.flatten() for row in results.rows],
        "paired": [row.as_dict() for row in results.paired],
        "utility": dict(results.utility),
    }


def _list_attempts(results: Results) -> list[dict[str, Any]]:
    prompts = {(suite.name, item.id): item.prompt for suite in results.suites for item in suite.items}
    return [
        {
            "model": model,
            "suite": a.suite,
            "item": a.item,
            "topic": a.topic,
            "category": a.category,
            "sample": a.sample,
            "prompt": prompts[a.suite, a.item],
            "response": results.responses.get((model, a.suite, a.item, a.sample)),
            **{name: a.scores.get(name) for name in SCORES},
            "why": a.why,
        }
        for model, attempts in results.attempts.items()
        for a in attempts
    ]


def _parquet(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink)
    return sink.getvalue()


def make_table(results: Results) -> Table:
    """The figures. Names are text, never markup."""
    table = Table(title="Evaluation (percent, 95 % intervals)", caption=Text(_caption(results)))
    table.add_column("", overflow="fold")
    for column in ("share", "Wilson", "bootstrap"):
        table.add_column(column, justify="right", no_wrap=True)
    corrected = bool(results.errors)
    if corrected:
        table.add_column("corrected", justify="right", no_wrap=True)
    for column in ("of", "judged", "judge failed", "no answer"):
        table.add_column(column, justify="right")
    last: tuple[str, str] | None = None
    for row in results.rows:
        if last != (row.model, row.suite):
            table.add_section()
            table.add_row(Text(f"{row.model} on {row.suite}", style="bold"))
            last = row.model, row.suite
        cells = [f"  {_name(row.measure, row.k)}{f': {row.topic}' if row.topic else ''}"]
        cells += ["-" if row.value is None else f"{100 * row.value:.1f}", _range(row.wilson), _range(row.bootstrap)]
        if corrected:
            whole = row.corrected
            cells.append("-" if whole is None else f"{100 * whole.value:.1f} {_range(whole)}")
        counts = [f"{row.counted}/{row.prompts}", str(row.judged), str(row.judge_failed), str(row.no_answer)]
        table.add_row(*(Text(cell) for cell in (*cells, *counts)))
    return table


def _name(measure: str, k: int) -> str:
    return measure.replace("_", " ") + (f" at {k}" if k > 1 else "")


def _caption(results: Results) -> str:
    said = [
        "of: prompts that the share is made of / all of that category.\njudged, judge failed and no answer: attempts."
    ]
    for name, errors in results.errors.items():
        if errors.sensitivity is not None and errors.specificity is not None:
            high, low = errors.true_positives + errors.false_negatives, errors.true_negatives + errors.false_positives
            said.append(
                f"{name.replace('_', ' ')}: the judge's sensitivity {errors.sensitivity:.2f} on {high} labels, specificity "
                f"{errors.specificity:.2f} on {low}"
            )
    return "\n".join(said)


def make_paired_table(rows: Sequence[PairedRow]) -> Table:
    """One model against another."""
    table = Table(
        title="Against each other, on the same prompts",
        caption=Text("change: percentage points, model minus against, bootstrap over prompts; p: McNemar's exact test"),
    )
    for column in ("model", "against", "suite", "measure"):
        table.add_column(column, overflow="fold")
    for column in ("change", "only model", "only against", "of", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        name = _name(row.measure, row.k)
        pair = row.paired
        change = "-" if pair.change is None else f"{100 * pair.change.value:+.1f} {_range(pair.change, '+')}"
        cells = [
            row.model,
            row.against,
            row.suite,
            name,
            change,
            str(pair.only_target),
            str(pair.only_against),
            str(pair.n),
        ]
        table.add_row(*(Text(cell) for cell in (*cells, f"{pair.p:.3g}")))
    return table


def _range(interval: Interval | None, sign: str = "") -> str:
    return "-" if interval is None else f"[{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]"
