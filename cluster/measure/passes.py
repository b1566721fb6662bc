"""A recipe's judge started in this process, without Ray, and asked about labels: once for each set of rubrics.

It neither retries nor remembers verdicts, and it reports no statistics of agreement (`agreement`). Whatever goes wrong while a
question is asked is a failed verdict, never the end.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from cluster.inputs.find import FoundJudge
from cluster.inputs.labels import Label
from cluster.measure.outcomes import Ask, Outcome, judge_labels
from cluster.measure.rewording import Asking
from cluster.sandbox.rule_judge import RuleJudge
from judge.errors import JudgeUnavailable
from judge.identity import judge_id_of
from judge.stats import JudgeStats
from judge.worker import JudgeWorker
from protocol.errors import UserError, first_words
from protocol.interfaces import Generator
from protocol.recipe import EngineConfig, JudgeConfig, Recipe
from protocol.types import JudgeRequest, Verdict


class ClosableGenerator(Generator, Protocol):
    """A generator that holds processes."""

    def close(self) -> None:
        """Ends them."""
        ...


BuildEngine = Callable[
    [str, EngineConfig, Callable[[], NoReturn], Mapping[str, Any]], Awaitable[ClosableGenerator]
]  # the last: template arguments


async def judge_all(
    recipe: Recipe, judge: FoundJudge, labels: Sequence[Label], build_engine: BuildEngine
) -> tuple[list[Outcome], JudgeStats]:
    """Has the recipe's judge answer the labels; gives its answers and its statistics.

    Args:
        judge: the recipe's, found.
        build_engine: starts a judge's engine here.
    """
    [once] = await judge_passes(
        recipe, judge, labels, build_engine, [Asking("once", recipe.judge.rubrics, recipe.run.seed)]
    )
    return once


async def judge_passes(
    recipe: Recipe, judge: FoundJudge, labels: Sequence[Label], build_engine: BuildEngine, askings: Sequence[Asking]
) -> list[tuple[list[Outcome], JudgeStats]]:
    """Has the labels answered once for each asking, one after the other, by one engine or endpoint.

    Returns:
        For each asking the answers, and the statistics when they were there: `usage` is that of all passes until then.
    """
    config = recipe.judge
    slots = config.api.concurrency if config.kind == "api" else config.engine.max_num_seqs
    # As many labels as the judge answers at once: one that waits for a place would use up its deadline.
    at_once = max(1, slots // (2 * config.verdicts))
    async with open_judges(recipe, judge, build_engine, [asking.rubrics for asking in askings]) as workers:
        return [
            (await judge_labels(_asker(config, judge, worker), labels, asking.seed, at_once), await worker.stats())
            for asking, worker in zip(askings, workers, strict=True)
        ]


def _asker(config: JudgeConfig, judge: FoundJudge, worker: JudgeWorker) -> Ask:
    """Asks a worker within its deadline; what goes wrong becomes a failure of each request."""
    # An endpoint's attempts have deadlines of their own.
    deadline_s = None if config.kind == "api" else config.deadline_s

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

    return ask


@contextlib.asynccontextmanager
async def open_judge(recipe: Recipe, judge: FoundJudge, build_engine: BuildEngine) -> AsyncIterator[JudgeWorker]:
    """The recipe's judge, started here and ended with the block."""
    async with open_judges(recipe, judge, build_engine, [recipe.judge.rubrics]) as [worker]:
        yield worker


@contextlib.asynccontextmanager
async def open_judges(
    recipe: Recipe, judge: FoundJudge, build_engine: BuildEngine, rubrics: Sequence[str]
) -> AsyncIterator[list[JudgeWorker]]:
    """The recipe's judge with each of these sets of rubrics: one engine or endpoint for all, ended with the block."""
    config = recipe.judge
    async with contextlib.AsyncExitStack() as stack:
        made: list[Generator] = []

        async def engine() -> Generator:
            assert judge.model is not None
            at = ("judge.model", judge.model, "judge.engine")
            generator = await start_engine(build_engine, at, config.engine, config.template_arguments)
            stack.callback(generator.close)
            return generator

        async def endpoint() -> Generator:
            from judge.api.client import ApiGenerator

            generator = ApiGenerator(config.api, None, config.sampling.left_out)
            stack.push_async_callback(generator.close)
            return generator

        make = {"lm": engine, "api": endpoint}.get(config.kind)

        async def share() -> Generator:
            assert make is not None
            if not made:
                made.append(await make())
            return made[0]

        workers = []
        for one in rubrics:
            with_rubrics = config.model_copy(update={"rubrics": one})
            judge_id = judge_id_of(config, judge.digest)
            worker = JudgeWorker(with_rubrics, judge_id, None if make is None else share, rules=RuleJudge)
            await worker.start()  # one after the other: the first makes what they share
            workers.append(worker)
        yield workers


async def start_engine(
    build: BuildEngine, at: tuple[str, str, str], config: EngineConfig, arguments: Mapping[str, Any]
) -> ClosableGenerator:
    """Starts an engine here.

    Args:
        at: who named the model, its folder, and the recipe's section about the engine, for messages.
        arguments: of the chat template.

    Raises:
        UserError: it does not start.
    """
    where, folder, section = at
    try:
        return await build(folder, config, _refuse_restart, arguments)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  # vLLM raises what it likes; no prompt was there yet that it could quote
        raise UserError(
            f"{where}: vLLM does not start on {folder} ({first_words(error)}); its own lines say why: look at {section} "
            "(max_model_len, kv_cache_gib or gpu_memory_utilization, start_deadline_s) and at the folder"
        ) from None


def _name_first(error: BaseException) -> str:
    """The type of the first error, taken out of its groups. Not its message: that may quote a prompt."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


def _refuse_restart() -> NoReturn:
    """Called when the engine dies. Nothing restarts this process: the remaining verdicts fail, and are reported."""
    raise JudgeUnavailable("the engine was lost", permanent=True)
