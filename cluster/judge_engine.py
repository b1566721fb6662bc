"""Hands a vLLM engine to a judge worker: `judge` knows generators, `actors` knows engines, and only here do they meet.

Invariant: an engine that broke is never asked again. Its whole process ends, because Ray then starts the actor afresh, on another
node if it must; the pool asks the other workers meanwhile.

It reads no verdicts and does not retry.
"""

import functools
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

import structlog

from actors.engine import Engine
from actors.errors import PromptTooLong, WorkerBroken
from judge.errors import JudgeUnavailable
from judge.rubric import Rubrics, check_context
from protocol.interfaces import Generator
from protocol.recipe import EngineConfig, Recipe
from protocol.types import Ask, Completion, Seed

EXIT_BROKEN = 70  # EX_SOFTWARE; any status but a clean exit makes Ray restart the actor
CHARS_PER_TOKEN = (
    3  # of an API's model, whose tokenizer we do not have; English takes more, so this errs on the safe side
)

_log = structlog.get_logger(__name__)


def leave() -> NoReturn:
    """Ends this process at once. An orderly exit would wait for an engine that does not answer."""
    logging.shutdown()
    os._exit(EXIT_BROKEN)


class JudgeEngine:
    """A `protocol.interfaces.Generator` for `judge.lm`.

    Args:
        engine: built with `updatable=False`.
        on_broken: what to do when the engine is lost; does not return.
    """

    def __init__(self, engine: Engine, on_broken: Callable[[], NoReturn]) -> None:
        self._engine, self._on_broken = engine, on_broken
        self._completions = self._tokens = 0

    async def generate(self, ask: Ask) -> list[Completion]:
        """One completion for each seed.

        Raises:
            JudgeUnavailable: the prompt leaves no room in `judge.engine.max_model_len`.
        """
        try:
            completions = await self._engine.generate(ask)
        except PromptTooLong:
            raise JudgeUnavailable("prompt too long", hopeless=True) from None
        except WorkerBroken as e:
            _log.error("judge engine broken, leaving", why=str(e))
            self._on_broken()
        self._completions += len(completions)
        self._tokens += sum(len(c.token_ids) for c in completions)
        return completions

    def stats(self) -> dict[str, int]:
        """`completions` written, their `tokens`, the `prompt_tokens` read, and how many of those the prefix cache held."""
        return {
            "completions": self._completions,
            "tokens": self._tokens,
            "prompt_tokens": self._engine.prompt_tokens,
            "cached_tokens": self._engine.cached_tokens,
        }

    def close(self) -> None:
        """Ends the engine's processes."""
        self._engine.close()


async def build_judge_engine(
    model_path: str, config: EngineConfig, on_broken: Callable[[], NoReturn] = leave
) -> JudgeEngine:
    """Starts the engine in this process; see `Engine.build` and `JudgeEngine`."""
    return JudgeEngine(await Engine.build(model_path, config, updatable=False), on_broken)


def engine_builder(recipe: Recipe, model_path: str) -> Callable[[], Awaitable[Generator]]:
    """What a `JudgeWorker` builds its generator with. Picklable.

    Args:
        model_path: the judge's Hugging Face folder, the sandbox's already made.
    """
    return functools.partial(build_judge_engine, model_path, recipe.judge.engine)


def check_judge_context(recipe: Recipe, model_path: str | None, rubrics: Rubrics, seeds: Iterable[Seed] = ()) -> None:
    """Refuses a recipe whose longest question, and the answer to it, do not fit into its judge's context.

    Tokens are the judge's own for kind `lm`, with its chat template; for kind `api` they are estimated, and the limit is
    `judge.api.context`, if it is known. The players' limits are counted in their own tokens, which is close enough to refuse
    what cannot work.

    Args:
        model_path: the judge's folder; read for kind `lm` only.
        rubrics: what it is asked with.
        seeds: what is played on; a seed is the query of its own attacks, and no player's limit holds for it.

    Raises:
        UserError: with the numbers.
    """
    judge = recipe.judge
    if judge.kind == "lm":
        from transformers import AutoTokenizer  # a second of imports

        tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)

        def count(text: str) -> int:
            chat = [{"role": "user", "content": text}]
            return len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))

        limit, where = judge.engine.max_model_len, "judge.engine.max_model_len"
    elif judge.kind == "api" and judge.api.context is not None:
        limit, where = judge.api.context, "judge.api.context"

        def count(text: str) -> int:
            return -(-len(text) // CHARS_PER_TOKEN)
    else:
        return
    response = recipe.sampling.max_new_tokens
    # A token is a byte at least, so no shorter seed can be the longest query; to tokenize them all would take a minute of many.
    long = [count(seed.text) - count("") for seed in seeds if len(seed.text.encode()) > response]
    query = max([response, *long])
    check_context(rubrics, count, query, response, judge.sampling.max_new_tokens, limit, where, judge.form)
