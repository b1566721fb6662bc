"""`python -m cluster.study`: runs what is missing of the study, then writes its text, figures and picture.

Exit status: 0 all runs count, 1 some were left out, 2 a mistake in the input, 130 interrupted (run it again to go on).
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cluster.console import run_app
from cluster.exits import FAILED, INTERRUPTED
from cluster.inputs.home import expand_home
from cluster.run.session import Interrupted, interrupts
from cluster.rundir import RunDir
from cluster.study.crossplay import cross_play
from cluster.study.figures import RunFigures, Study, dump, figures_of
from cluster.study.plot import draw
from cluster.study.report import report
from cluster.study.runner import PlannedRun, Runner, origin_of, plan
from cluster.study.settings import changes_of, settings_of
from cluster.study.variants import BASELINE, BY_NAME, VARIANTS
from protocol.errors import UserError
from protocol.files import write_file

PICTURE = "study.svg"
SEEDS, DOCS = 5, Path("docs")
app = typer.Typer(add_completion=False)


@app.command()
def study(
    seeds: Annotated[int, typer.Option(help="runs of each variant, with run.seed 1 to this", min=1)] = SEEDS,
    variant: Annotated[list[str] | None, typer.Option(help="only this one; repeatable", metavar="NAME")] = None,
    runs: Annotated[Path, typer.Option(help="where the runs lie; finished ones are kept")] = Path("runs/study"),
    recipes: Annotated[Path, typer.Option(help="a file for each variant")] = Path("deploy/recipes/study"),
    docs: Annotated[
        Path, typer.Option(help="where study.md, study.json and study.svg go; those of a part go to --runs")
    ] = DOCS,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="run nothing; write what the finished runs say")
    ] = False,
) -> None:
    """Compares the variants of the game in the sandbox, at equal updates."""
    names = variant or [v.name for v in VARIANTS]
    if unknown := [name for name in names if name not in BY_NAME]:
        raise UserError(f"--variant {unknown[0]}: unknown; choose among {', '.join(BY_NAME)}")
    runs, recipes = expand_home(runs, "--runs"), expand_home(recipes, "--recipes")
    docs = expand_home(docs, "--docs")
    planned = plan(names, range(1, seeds + 1), recipes, runs.resolve())
    with interrupts():
        try:
            if not report_only:
                Runner(_say).run(planned)
            found = collect(planned, _say)
        except Interrupted as e:
            _say(f"interrupted ({e}); finished runs are kept: run the study again to go on")
            raise typer.Exit(INTERRUPTED) from None
    if (set(names), seeds) != (set(BY_NAME), SEEDS) and docs == DOCS:
        docs = runs  # a part of the study must not overwrite the whole
    if not any(run.counts for run in found.runs):
        raise UserError(
            f"--runs {runs}: none of the {len(found.runs)} runs finished, so there is nothing to report; {docs} is left as it is"
        )
    write(found, docs)
    missing = [f"{run.variant} seed {run.seed} ({run.note})" for run in found.runs if not run.counts]
    _say(f"{docs / 'study.md'}: {len(found.runs) - len(missing)} of {len(found.runs)} runs count")
    for line in missing:
        _say(f"left out: {line}")
    raise typer.Exit(FAILED if missing else 0)


def collect(planned: list[PlannedRun], say: Callable[[str], None]) -> Study:
    """The figures of all planned runs, and cross-play between those that count."""
    figures = {run.name: _figures(run) for run in planned}
    counted = [run for run in planned if figures[run.name].counts]
    baseline = next((run.recipe for run in planned if run.variant == BASELINE), planned[0].recipe)
    return Study(
        updates=baseline.run.steps,
        settings=settings_of(baseline),
        changes={run.variant: changes_of(run.recipe, baseline) for run in planned},
        runs=tuple(figures.values()),
        faced=tuple(cross_play(counted, say)),
    )


def _figures(run: PlannedRun) -> RunFigures:
    return figures_of(run.variant, run.seed, run.steps, RunDir(run.path).read_summary(), origin_of(run))


def write(found: Study, docs: Path) -> None:
    """The three files, each whole."""
    docs.mkdir(parents=True, exist_ok=True)
    write_file(docs / "study.json", dump(found))
    write_file(docs / PICTURE, draw(found))
    write_file(docs / "study.md", report(found, PICTURE))


_STARTED = time.monotonic()


def _say(line: str) -> None:
    typer.echo(f"[{(time.monotonic() - _STARTED) / 60:6.1f} min] {line}")


if __name__ == "__main__":
    run_app(app)
