"""The tables at the end of a run: before -> after, each with its interval; and names as they are."""

from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.exits import RunEnd
from cluster.measure.heldout import Measurement
from cluster.run.end_tables import heldout_table, run_table
from cluster.run.summary import RunOutcome, summarize
from tests.unit.cluster.plan.plans import parse_plan

# Newcombe (1998), table II (a): 56 of 70 against 48 of 80 differ by 0.2 [0.0524, 0.3339]; Wilson's intervals by hand.
BEFORE = Measurement(0.6, 0.25, 0.75, 0.1, 160, 80, 80, 1, 2, 1, 0)
AFTER = Measurement(0.8, 0.25, 0.75, None, 150, 70, 80, 0, 0, 0, 0)


def told(table: Table, width: int = 100) -> list[str]:
    console = Console(record=True, width=width, file=StringIO())
    console.print(table)
    return [" ".join(row.replace("│", " ").replace("┃", " ").split()) for row in console.export_text().splitlines()]


def summary(samples: int = 1, **heldout: Measurement) -> dict[str, Any]:
    plan = parse_plan({"heldout": {"samples": samples}})
    return summarize(plan, RunOutcome(RunEnd.FINISHED, 1.0, heldout=heldout))


def test_each_share_has_its_interval_and_so_has_its_change() -> None:
    rows = told(heldout_table(summary(start=BEFORE, end=AFTER)))
    assert "attack success 60 % [49, 70] 80 % [69, 88] +20 % [+5, +33] -" in rows
    assert any(row.startswith("over-refusal 25 % [17, 35] 25 % [17, 35] +0 % [-1") for row in rows)
    assert any(row.startswith("deflection 10 % [") and row.endswith("] - - -") for row in rows)
    assert "judged 80 + 80 70 + 80 -" in rows and "lost 3 0 -" in rows
    caption = " ".join(rows)
    assert "[low, high]: 95 % intervals" in caption, "as it is, not read as markup"
    assert "Wilson's of a share, Newcombe's of the change" in caption and "two independent samples" in caption


def test_attacks_on_the_same_seed_are_not_independent_trials() -> None:
    twice = replace(BEFORE, n=320, n_harmful=160, n_benign=160)
    rows = told(heldout_table(summary(2, start=twice)))
    assert "attack success 60 % [49, 70] - - -" in rows, "as 80 trials"


def test_the_trained_attacker_has_a_column_and_the_table_fits_a_terminal() -> None:
    rows = told(heldout_table(summary(start=BEFORE, end=AFTER, end_trained_attacker=BEFORE)))
    assert "attack success 60 % [49, 70] 80 % [69, 88] +20 % [+5, +33] 60 % [49, 70]" in rows


def test_the_title_tells_the_time_and_the_names_as_they_are() -> None:
    finished = summary() | {"run": ":llama: [red]x[/red]", "wall_s": 252.0, "wall_s_total": 252.0}
    assert told(run_table(finished))[0] == "Run :llama: [red]x[/red]: finished after 252 s (4 min)"
    resumed = finished | {"run": "a", "wall_s": 30.0, "wall_s_total": 4000.0}
    assert told(run_table(resumed))[0] == "Run a: finished after 30 s, 1 h 7 min with its earlier parts"
