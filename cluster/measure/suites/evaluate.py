"""`evaluate`: asks the models what the journal lacks, one after the other, then the judge, and writes what comes of it.

One engine at a time: a model's is closed before the next one's starts, and the judge's comes last. No Ray. What was answered is
in the journal, so that the same command goes on where this one ended, however it ended.
"""

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.console import make_console
from cluster.exits import FAILED
from cluster.inputs.target_endpoint import hint_at
from cluster.inputs.targets import Target
from cluster.measure.correction import JudgeErrors, count_errors
from cluster.measure.passes import BuildEngine, open_judge, start_engine
from cluster.measure.suites.asking import ANSWER, GaveUp, Tell, ask_target, list_missing
from cluster.measure.suites.attempts import MEASURES
from cluster.measure.suites.journal import Journal
from cluster.measure.suites.judging import (
    ask_judge,
    list_label_questions,
    list_questions,
    read_attempts,
    read_outcomes,
)
from cluster.measure.suites.report import Results, make_paired_table, make_table, write_results
from cluster.measure.suites.request import Evaluation
from cluster.measure.suites.table import compare_models, known_measures, make_rows
from cluster.measure.suites.utility import run_utility
from cluster.waiting import Note, Wait, wait_in_lines
from protocol.errors import UserError
from protocol.interfaces import Generator

JOURNAL = "journal.jsonl"
AGAIN = "run the same command again: it asks only for what is missing"

Say = Callable[[str], None]


def evaluate(evaluation: Evaluation, build_engine: BuildEngine, say: Say) -> int:
    """Runs it; gives the exit status: 0, or `FAILED` where answers or verdicts are missing.

    Args:
        build_engine: starts a vLLM engine here.
        say: told of what takes long, and of warnings.

    Raises:
        UserError: a model or the judge does not answer, or a file cannot be written; what was answered is kept.
    """
    for warning in evaluation.warnings:
        say(f"warning: {warning}")
    for suite in evaluation.suites:
        for reason, n in suite.dropped:
            say(f"{suite.name}: {n} rows left out: {reason}")
    with Journal(evaluation.out / JOURNAL, evaluation.about()) as journal:
        left, utility = _ask_models(evaluation, journal, build_engine, say)
        left |= asyncio.run(_judge(evaluation, journal, build_engine, wait_in_lines(say)))
        results = count_results(evaluation, journal, utility)
    write_results(results, evaluation.out)
    console = make_console()
    console.print(make_table(results))
    if results.paired:
        console.print(make_paired_table(results.paired))
    say(f"results.json, rows.parquet and attempts.parquet are in {evaluation.out}")
    if not results.missing and not left:
        return 0
    why = ", ".join(f"{n} {reason}" for reason, n in left.most_common())
    n = max(sum(results.missing.values()), left.total())
    say(f"{n} answers or verdicts are missing from the figures{f' ({why})' if why else ''}; {AGAIN}")
    return FAILED


def _ask_models(
    evaluation: Evaluation, journal: Journal, build_engine: BuildEngine, say: Say
) -> tuple[Counter[str], dict[str, Any]]:
    """Asks each model for what is missing; gives what was left, by reason, and lm-eval's results."""
    left: Counter[str] = Counter()
    utility: dict[str, Any] = {}
    for target in evaluation.targets:
        missing = list_missing(journal, target, evaluation.suites, evaluation.samples)
        if not missing and evaluation.utility is None:
            continue
        with _with_folder(target, evaluation.out, say) as ready:
            if missing:
                left |= asyncio.run(_ask_model(evaluation, ready, missing, journal, build_engine, wait_in_lines(say)))
            if evaluation.utility is not None and ready.folder is not None:
                with wait_in_lines(say)(f"lm-eval on {ready.name}", "minutes to hours"):
                    utility[ready.name] = run_utility(evaluation.utility, ready.name, ready.folder, evaluation.out)
    return left, utility


@contextlib.contextmanager
def _with_folder(target: Target, out: Path, say: Say) -> Iterator[Target]:
    """The target with its folder there; a checkpoint's is made for the block and removed after it."""
    kept = target.checkpoint
    if kept is None:
        yield target
        return
    from dataclasses import replace

    from learners.storage.consolidate import consolidate

    folder = out / "models" / kept.folder.name
    folder.parent.mkdir(exist_ok=True)
    with wait_in_lines(say)(f"the model folder of {target.name}", ""):
        consolidate(kept.folder, kept.base, folder, kept.dtype, kept.sampler)
    try:
        yield replace(target, folder=folder)
    finally:
        shutil.rmtree(folder.parent)


async def _ask_model(
    evaluation: Evaluation, target: Target, missing: Any, journal: Journal, build_engine: BuildEngine, wait: Wait
) -> Counter[str]:
    at_once = target.api.concurrency if target.api is not None else (target.engine.max_num_seqs if target.engine else 1)
    try:
        async with _open(target, build_engine) as generator:
            with wait(f"{len(missing)} answers of {target.name}", "") as note:
                return await ask_target(generator, target, missing, evaluation.manner, at_once, journal, _tell(note))
    except GaveUp as why:
        where = "" if target.api is None else f" at {target.api.base_url}"
        hint = "" if target.api is None else hint_at(str(why), target.api)
        raise UserError(
            f"evaluate: {target.name}{where} does not answer: {why}{hint}; what was answered is kept in {evaluation.out}; mend it, "
            f"and {AGAIN}"
        ) from None


@contextlib.asynccontextmanager
async def _open(target: Target, build_engine: BuildEngine) -> AsyncIterator[Generator]:
    if target.api is not None:
        from judge.api.client import ApiGenerator

        endpoint = ApiGenerator(target.api, None, target.left_out)
        try:
            yield endpoint
        finally:
            await endpoint.close()
        return
    assert target.folder is not None and target.engine is not None
    at = (f"evaluate: {target.name}", str(target.folder), "generation")
    engine = await start_engine(build_engine, at, target.engine, target.template_arguments)
    try:
        yield engine
    finally:
        engine.close()


async def _judge(evaluation: Evaluation, journal: Journal, build_engine: BuildEngine, wait: Wait) -> Counter[str]:
    seed = evaluation.manner.seed
    questions = list_label_questions(journal, evaluation.labels, seed)
    questions += list_questions(
        journal, evaluation.targets, evaluation.suites, evaluation.samples, evaluation.with_harmfulness, seed
    )
    if not questions:
        return Counter()
    try:
        async with open_judge(evaluation.recipe, evaluation.judge, build_engine) as worker:
            with wait(f"{len(questions)} verdicts of {evaluation.judge_id}", "") as note:
                return await ask_judge(worker, evaluation.recipe.judge, questions, journal, _tell(note))
    except GaveUp as why:
        raise UserError(
            f"evaluate: the judge {evaluation.judge_id} does not answer: {why}; answers and verdicts are kept in "
            f"{evaluation.out}; mend it, and {AGAIN}"
        ) from None


def _tell(note: Note) -> Tell:
    return lambda done, wanted: note(f"{done} of {wanted}")


def count_results(evaluation: Evaluation, journal: Journal, utility: Mapping[str, Any]) -> Results:
    """The results that a journal amounts to."""
    measures = known_measures(evaluation.with_harmfulness)
    attempts = {
        target.name: read_attempts(journal, target, evaluation.suites, evaluation.samples, evaluation.with_harmfulness)
        for target in evaluation.targets
    }
    errors: dict[str, JudgeErrors] = {}
    if evaluation.labels:
        outcomes = read_outcomes(journal, evaluation.labels)
        errors = {m.name: count_errors(outcomes, m.criterion, m.category) for m in MEASURES if m in measures}
    rows = [
        row for name, mine in attempts.items() for row in make_rows(name, mine, evaluation.samples, errors, measures)
    ]
    names = list(attempts)
    pairs = []
    if evaluation.paired:
        pairs = [(names[0], names[1])]
    elif len(names) > 1:  # checkpoints: each against the start
        pairs = [(name, names[0]) for name in names[1:]]
    paired = [
        row
        for name, other in pairs
        for row in compare_models(name, attempts[name], other, attempts[other], evaluation.samples, measures)
    ]
    responses = {
        (name, a.suite, a.item, a.sample): journal.get(ANSWER, name, a.suite, a.item, a.sample)["text"]
        for name, mine in attempts.items()
        for a in mine
        if a.answered
    }
    return Results(
        about=evaluation.about(),
        suites=evaluation.suites,
        attempts=attempts,
        responses=responses,
        rows=rows,
        paired=paired,
        errors=errors,
        warnings=evaluation.warnings,
        utility=utility,
    )
