"""`calibrate`: has the recipe's judge answer labelled questions, in this process and without Ray, and reports how well it agrees.

Each question is asked once, without the pool's retries and its cache, because the judge is measured, not the pool. Pairs are judged
in both orders whatever the recipe's quirks. A judge that reads rubrics is then asked once more, and with each rewording of them.
Failures are reported as failures; only the user's mistakes end it early.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.console import make_console
from cluster.inputs.find import find_judge
from cluster.inputs.home import expand_home
from cluster.inputs.labels import load_labels
from cluster.inputs.package_versions import package_versions
from cluster.inputs.recipe_file import load_recipe
from cluster.measure.agreement import Row, failures, report
from cluster.measure.card import NO_REWORDINGS, NO_RUBRIC, NOT_ASKED, make_card
from cluster.measure.card_text import MARKDOWN, say_share, write_card
from cluster.measure.intervals import CONFIDENCE, Interval
from cluster.measure.model_cards import WriteModelCards, renew_model_cards
from cluster.measure.outcomes import Outcome
from cluster.measure.passes import BuildEngine, judge_passes
from cluster.measure.rewording import AGAIN, Asking, compare_passes
from cluster.rundir import RunDir
from judge.identity import judge_id_of
from judge.rubric import find_rewordings, load_rubrics
from judge.stats import JudgeStats
from protocol.errors import UserError
from protocol.files import write_json
from protocol.randomness import derive_seed
from protocol.recipe import JudgeConfig, Recipe

SHOWN = {  # measures by their heading
    "accuracy": "accuracy",
    "kappa": "kappa",
    "flip_rate": "flips",
    "parse_failure_rate": "unreadable",
    "failure_rate": "failed",
    "length_bias": "length bias",
    "position_bias": "position bias",
    "mean_error": "mean error",
}


def calibrate(
    recipe_file: Path,
    overrides: Sequence[str],
    named: str,
    json_file: Path | None,
    limit: int | None,
    build_engine: BuildEngine,
    out: Path | None = None,
    reword: bool = True,
    write_model_cards: WriteModelCards | None = None,
) -> None:
    """Judges the labels, prints the table, and writes the JSON and the Judge Card where they are wanted.

    Args:
        recipe_file: a recipe, or a run's directory: then its judge is measured, and the card lies beside its summary.
        named: a label file, or `sandbox`.
        limit: judge at most so many labels, spread evenly over the file.
        build_engine: starts a judge's engine here.
        out: an existing folder for the card, instead of the run's.
        reword: ask once more, and with the rubrics reworded.
        write_model_cards: called where the card lies beside a run's summary.

    Raises:
        UserError: before the judge is started; or the model cards cannot be written, when everything else is.
    """
    recipe_file = expand_home(recipe_file)
    json_file = json_file and expand_home(json_file, "--json")
    out = out and expand_home(out, "--out")
    run_dir = find_calibrated_run(recipe_file)
    recipe = load_recipe(recipe_file if run_dir is None else run_dir.recipe, overrides)
    if run_dir is not None and out is None:
        check_own_judge(run_dir, recipe)
    known = load_labels(named, "--labels")
    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise UserError(f"--json: {json_file} is no file in an existing folder; make the folder first, or name another")
    if out is not None and not out.is_dir():
        raise UserError(f"--out: {out} is no folder; make it first, or name another")
    labels = known if limit is None or limit >= len(known) else [known[k * len(known) // limit] for k in range(limit)]
    console = make_console()
    judge = find_judge(recipe, lambda text: console.print(text, markup=False))
    judge_id = judge_id_of(recipe.judge, judge.digest)
    console.print(f"{judge_id}: judging {len(labels)} of {len(known)} labels", markup=False)
    askings, why_not = plan_askings(recipe, reword)
    for asking in askings[1:]:
        console.print(f"then again, {asking.name}", markup=False)
    started = time.monotonic()
    passes = asyncio.run(judge_passes(recipe, judge, labels, build_engine, askings))
    seconds = round(time.monotonic() - started, 1)
    outcomes, stats = passes[0]
    rows = report(outcomes)
    console.print(make_table(rows))
    for reason, n in failures(outcomes).items():
        console.print(f"{n} verdicts failed: {reason}", markup=False)
    changes = compare_passes(outcomes, [(a, o) for a, (o, _) in zip(askings[1:], passes[1:], strict=True)])
    for change in changes:
        console.print(f"{say_share(change.changed)} of the answers change: {change.name}", markup=False)
    if json_file is not None:
        about = {"labels": named, "labels_known": len(known), "seconds": seconds}
        write_json(json_file, about | as_json(outcomes, rows, stats))
    if (folder := out or (run_dir.path if run_dir else None)) is not None:
        card = make_card(
            recipe.judge,
            judge_id,
            package_versions(),
            Path(named).name,
            len(known),
            datetime.now(UTC).date().isoformat(),
            outcomes,
            rows,
            changes,
            why_not,
            passes[-1][1].usage,
        )
        write_card(folder, card)
        console.print(f"the Judge Card is {folder / MARKDOWN}", markup=False)
        if out is None and run_dir is not None and write_model_cards is not None:
            for model in renew_model_cards(run_dir, write_model_cards):
                console.print(f"the model card of {model} tells of it", markup=False)


def find_calibrated_run(given: Path) -> RunDir | None:
    """The run whose directory was given in a recipe's place; None for a recipe file."""
    run_dir = RunDir(given.absolute())
    return run_dir if run_dir.recipe.is_file() else None


def check_own_judge(run_dir: RunDir, recipe: Recipe) -> None:
    """A card beside a run's summary is of the judge that judged it, not of what `--set` made of it.

    Raises:
        UserError: they differ in what changes verdicts.
    """
    own = load_recipe(run_dir.recipe).judge
    if _told_apart(own) != _told_apart(recipe.judge):
        raise UserError(
            "--set: changes the judge of the run, whose card would lie beside its summary; leave it out, or give --out FOLDER"
        )


def _told_apart(judge: JudgeConfig) -> tuple[object, ...]:
    """What verdicts depend on. Not where a model folder lies: the run may have been moved."""
    return judge_id_of(judge), judge.rubrics, judge.verdicts, judge.structured, judge.sampling


def plan_askings(recipe: Recipe, reword: bool) -> tuple[list[Asking], str | None]:
    """The passes over the labels, the recipe's own rubrics first, and why these are not reworded; None if they are.

    Raises:
        UserError: a rewording is not as rubrics should be.
    """
    config, seed = recipe.judge, recipe.run.seed
    first = Asking("as the recipe says", config.rubrics, seed)
    if (nothing := NO_RUBRIC.get(config.kind)) is not None:
        return [first], nothing
    if not reword:
        return [first], NOT_ASKED
    again = Asking(AGAIN, config.rubrics, derive_seed(seed, "again"))
    sets = find_rewordings(config.rubrics)
    for name in sets:
        load_rubrics(name)  # what is wrong with a file is said before the judge is started
    return [first, again, *(Asking(Path(name).name, name, seed) for name in sets)], None if sets else NO_REWORDINGS


def as_json(outcomes: Sequence[Outcome], rows: Sequence[Row], stats: JudgeStats) -> dict[str, Any]:
    """The report for programs. `stats` are the judge worker's."""
    verdicts = [v for o in outcomes for v in o.verdicts]
    return {
        "judges": sorted({v.judge_id for v in verdicts}),
        "rubrics": sorted({v.rubric for v in verdicts if not v.rubric.startswith("none/")}),
        "confidence": CONFIDENCE,
        "verdicts": len(verdicts),
        "failures": failures(outcomes),
        "samples_unread": dict(stats.unread),
        "rows": [row.as_dict() for row in rows],
    }


def make_table(rows: Sequence[Row]) -> Table:
    """The report for people: each estimate above its 95 % interval."""
    shown = Table(title="The judge against the labels (95 % intervals below)", show_lines=True)
    shown.add_column("labels", no_wrap=True)
    shown.add_column("judged", justify="right", no_wrap=True)
    for heading in SHOWN.values():
        shown.add_column(heading, justify="right")
    for row in rows:
        form = "" if row.form in ("all", row.criterion) else f"\n{row.form}"
        cells = [_cell(getattr(row, name)) for name in SHOWN]
        shown.add_row(f"{row.criterion}{form}", f"{row.judged}\nof {row.n}", *cells)
    return shown


def _cell(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.3f}\n{interval.low:.2f}..{interval.high:.2f}"
