"""`calibrate`: has the recipe's judge answer labelled questions, in this process and without Ray, and reports how well it agrees.

Each question is asked once, without the pool's retries and its cache, because the judge is measured, not the pool. Pairs are judged
in both orders whatever the recipe's quirks. Failures are reported as failures; only the user's mistakes end it early.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from rich.table import Table

from cluster.console import make_console
from cluster.inputs.find import FoundJudge, find_judge
from cluster.inputs.labels import Label, load_labels
from cluster.inputs.recipe_file import load_recipe
from cluster.measure.agreement import Row, failures, report
from cluster.measure.intervals import CONFIDENCE, Interval
from cluster.measure.outcomes import Outcome, judge_labels
from cluster.sandbox.rule_judge import RuleJudge
from judge.errors import JudgeUnavailable
from judge.identity import judge_id_of
from judge.stats import JudgeStats
from judge.worker import JudgeWorker
from protocol.errors import UserError
from protocol.files import write_json
from protocol.interfaces import Generator
from protocol.recipe import EngineConfig, Recipe
from protocol.types import JudgeRequest, Verdict


class ClosableGenerator(Generator, Protocol):
    """A generator that holds processes."""

    def close(self) -> None:
        """Ends them."""
        ...


BuildEngine = Callable[[str, EngineConfig, Callable[[], NoReturn]], Awaitable[ClosableGenerator]]

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
) -> None:
    """Judges the labels, prints the table and, if asked to, writes the JSON.

    Args:
        named: a label file, or `sandbox`.
        limit: judge at most so many labels, spread evenly over the file.
        build_engine: starts a judge's engine here.

    Raises:
        UserError: before the judge is started.
    """
    recipe = load_recipe(recipe_file, overrides)
    known = load_labels(named, "--labels")
    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise UserError(f"--json: {json_file} is no file in an existing folder; make the folder first, or name another")
    labels = known if limit is None or limit >= len(known) else [known[k * len(known) // limit] for k in range(limit)]
    console = make_console()
    judge = find_judge(recipe, lambda text: console.print(text, markup=False))
    console.print(
        f"{judge_id_of(recipe.judge, judge.digest)}: judging {len(labels)} of {len(known)} labels", markup=False
    )
    started = time.monotonic()
    outcomes, stats = asyncio.run(judge_all(recipe, judge, labels, build_engine))
    seconds = round(time.monotonic() - started, 1)
    rows = report(outcomes)
    console.print(make_table(rows))
    for reason, n in failures(outcomes).items():
        console.print(f"{n} verdicts failed: {reason}", markup=False)
    if json_file is not None:
        about = {"labels": named, "labels_known": len(known), "seconds": seconds}
        write_json(json_file, about | as_json(outcomes, rows, stats))


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


async def judge_all(
    recipe: Recipe, judge: FoundJudge, labels: Sequence[Label], build_engine: BuildEngine
) -> tuple[list[Outcome], JudgeStats]:
    """Has the recipe's judge answer the labels; gives its answers and its statistics.

    Args:
        judge: the recipe's, found.
        build_engine: starts a judge's engine here.
    """
    config = recipe.judge
    deadline_s = (
        None if config.kind == "api" else config.deadline_s
    )  # an endpoint's attempts have deadlines of their own
    async with open_judge(recipe, judge, build_engine) as worker:

        async def ask(requests: list[JudgeRequest]) -> list[Verdict]:
            try:
                async with asyncio.timeout(deadline_s):
                    return await worker.judge(requests)
            except TimeoutError:
                why = f"no answer in {config.deadline_s:g} s"
            except Exception as error:  # noqa: BLE001  # the other verdicts must not be lost; the worker logs where it failed
                why = _name_first(error)
            return [
                Verdict(judge_id_of(config, judge.digest), f"none/{r.criterion}", failure=f"judge down: {why}")
                for r in requests
            ]

        slots = config.api.concurrency if config.kind == "api" else config.engine.max_num_seqs
        # As many labels as the judge answers at once: one that waits for a place would use up its deadline.
        at_once = max(1, slots // (2 * config.verdicts))
        return await judge_labels(ask, labels, recipe.run.seed, at_once), await worker.stats()


@contextlib.asynccontextmanager
async def open_judge(recipe: Recipe, judge: FoundJudge, build_engine: BuildEngine) -> AsyncIterator[JudgeWorker]:
    """The recipe's judge, started here and ended with the block."""
    config = recipe.judge
    async with contextlib.AsyncExitStack() as stack:

        async def engine() -> Generator:
            assert judge.model is not None
            generator = await build_engine(judge.model, config.engine, _refuse_restart)
            stack.callback(generator.close)
            return generator

        async def endpoint() -> Generator:
            from judge.api.client import ApiGenerator

            generator = ApiGenerator(config.api, None)
            stack.push_async_callback(generator.close)
            return generator

        build = {"lm": engine, "api": endpoint}.get(config.kind)
        worker = JudgeWorker(config, judge_id_of(config, judge.digest), build, rules=RuleJudge)
        await worker.start()
        yield worker


def _name_first(error: BaseException) -> str:
    """The type of the first error, taken out of its groups. Not its message: that may quote a prompt."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


def _refuse_restart() -> NoReturn:
    """Called when the engine dies. Nothing restarts this process: the remaining verdicts fail, and are reported."""
    raise JudgeUnavailable("the engine was lost", permanent=True)


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
