"""`python -m tests.benchmarks.synchronous`: what bounded staleness costs in results and saves in time.

The sandbox with `synchronous: true` against the bound of 4, seeds 0, 1 and 2 each: six whole runs of some minutes, so it is not
among the benchmarks that run together. Finished runs are kept, and it goes on where it was. The table goes into
docs/benchmarks.md; with other seeds or recipes it is only printed.

Exit status: 0 all runs count, 1 some were left out, 2 a mistake in the input, 130 interrupted.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.exits import FAILED, INTERRUPTED, USER_ERROR
from cluster.run.session import Interrupted, interrupts
from cluster.rundir import RunDir
from cluster.study.compare import mean_of
from cluster.study.figures import BASE_SUCCESS, DEFLECTION, OVER_REFUSAL, TRAINED_SUCCESS, RunFigures, figures_of
from cluster.study.runner import Runner, origin_of, plan
from cluster.study.tables import amount, make_table, percent
from protocol.errors import UserError
from protocol.files import write_file
from tests.benchmarks.page import fill
from tests.paths import DOCS, ROOT

LABELS = {"bound-4": "bound 4", "synchronous": "synchronous"}
SEEDS = (0, 1, 2)
RECIPES = Path(__file__).parent / "recipes"
METRICS = (BASE_SUCCESS, TRAINED_SUCCESS, OVER_REFUSAL, DEFLECTION)
NAME = "synchronous"  # the markers' on the page


def report(runs: Sequence[RunFigures]) -> list[str]:
    """Markdown: a row a run, the means, the difference paired by seed; then where the runs were made. Pure."""
    counted = sorted((run for run in runs if run.counts), key=lambda run: (run.seed, list(LABELS).index(run.variant)))
    rows = [[f"{LABELS[r.variant]}, seed {r.seed}", *_cells(r)] for r in counted]
    of = {variant: {run.seed: run for run in counted if run.variant == variant} for variant in LABELS}
    rows += [[f"{LABELS[variant]}, mean", *_means(list(found.values()))] for variant, found in of.items()]
    rows.append(["synchronous minus bound 4", *_differences(of["synchronous"], of["bound-4"])])
    lines = make_table(["", *(metric.title for metric in METRICS), "wall time, s"], rows)
    lines += [
        "",
        "Per cent of held-out responses; means and paired differences with 95 % intervals over seeds (Student's t).",
    ]
    origins = sorted({f"{', '.join(r.commits)}: {r.machine}; {_versions(r)}" for r in counted})
    lines += ["", *(f"- Commit {origin}." for origin in origins)]
    return lines + [f"- Left out: {LABELS[r.variant]}, seed {r.seed}: {r.note}." for r in runs if not r.counts]


def _cells(run: RunFigures) -> list[str]:
    values = [run.value(metric) for metric in METRICS]
    return [*("-" if value is None else f"{100 * value:.1f}" for value in values), f"{run.wall_s:.0f}"]


def _means(runs: Sequence[RunFigures]) -> list[str]:
    means = [percent(mean_of([v for run in runs if (v := run.value(metric)) is not None])) for metric in METRICS]
    return [*means, amount(mean_of([run.wall_s for run in runs]))]


def _differences(of: dict[int, RunFigures], against: dict[int, RunFigures]) -> list[str]:
    pairs = [(of[seed], against[seed]) for seed in sorted(of.keys() & against.keys())]

    def paired(metric: Callable[[RunFigures], float | None]) -> list[float]:
        values = [(metric(a), metric(b)) for a, b in pairs]
        return [a - b for a, b in values if a is not None and b is not None]

    differences = [percent(mean_of(paired(lambda run, m=metric: run.value(m)))) for metric in METRICS]
    return [*differences, amount(mean_of(paired(lambda run: run.wall_s)))]


def _versions(run: RunFigures) -> str:
    return ", ".join(f"{name} {number}" for name, number in run.versions.items())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.synchronous")
    parser.add_argument("--seed", type=int, action="append", help="only this one; repeatable")
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "runs" / NAME, help="where the runs lie; finished ones are kept"
    )
    parser.add_argument("--recipes", type=Path, default=RECIPES, help="a folder with bound-4.yaml and synchronous.yaml")
    given = parser.parse_args(arguments)
    seeds, whole = tuple(given.seed or SEEDS), given.recipes == RECIPES
    try:
        planned = plan(list(LABELS), seeds, given.recipes, given.runs.expanduser().resolve())
        with interrupts():
            Runner(_say).run(planned)
    except Interrupted as e:
        _say(f"interrupted ({e}); finished runs are kept: run it again to go on")
        return INTERRUPTED
    except UserError as e:
        _say(str(e))
        return USER_ERROR
    runs = [
        figures_of(run.variant, run.seed, run.steps, RunDir(run.path).read_summary(), origin_of(run)) for run in planned
    ]
    lines, all_count = report(runs), all(run.counts for run in runs)
    print("\n".join(lines))
    if whole and seeds == SEEDS and any(run.counts for run in runs):
        page = DOCS / "benchmarks.md"
        write_file(page, fill(page.read_text(), NAME, lines))
    return 0 if all_count else FAILED


_STARTED = time.monotonic()


def _say(line: str) -> None:
    print(f"[{(time.monotonic() - _STARTED) / 60:6.1f} min] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
