"""Hands a vLLM engine to a judge worker: `judge` knows generators, `actors` knows engines, and only here do they meet.

Invariant: an engine that broke is never asked again. Its whole process ends, because Ray then starts the actor afresh, on another
node if it must; the pool asks the other workers meanwhile.

It reads no verdicts and does not retry.
"""

import functools
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import structlog

from actors.engine.engine import Engine
from actors.errors import PromptTooLong, WorkerBroken
from judge.errors import JudgeUnavailable
from judge.stats import EngineUsage
from protocol.interfaces import Generator
from protocol.recipe import EngineConfig, JudgeConfig
from protocol.types import Ask, Completion

EXIT_BROKEN = 70  # EX_SOFTWARE; any status but a clean exit makes Ray restart the actor

_log = structlog.get_logger(__name__)


def exit_process() -> NoReturn:
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
            raise JudgeUnavailable("prompt too long", permanent=True) from None
        except WorkerBroken as e:
            _log.error("judge engine broken, leaving", why=str(e))
            self._on_broken()
        self._completions += len(completions)
        self._tokens += sum(len(c.token_ids) for c in completions)
        return completions

    @property
    def steps(self) -> int:
        """Of the engine, so far."""
        return self._engine.steps

    async def check_health(self) -> None:
        """Ends the process, by `on_broken`, if vLLM says that the engine is dead."""
        try:
            await self._engine.check_health()
        except WorkerBroken as e:
            _log.error("judge engine dead, leaving", why=str(e))
            self._on_broken()

    def usage(self) -> EngineUsage:
        """What the engine read and wrote since it was built."""
        engine = self._engine
        return EngineUsage(self._completions, self._tokens, engine.prompt_tokens, engine.cached_tokens)

    def close(self) -> None:
        """Ends the engine's processes."""
        self._engine.close()


async def build_judge_engine(
    model_path: str,
    config: EngineConfig,
    on_broken: Callable[[], NoReturn] = exit_process,
    template_arguments: Mapping[str, Any] | None = None,
) -> JudgeEngine:
    """Starts the engine in this process; see `Engine.build` and `JudgeEngine`."""
    engine = await Engine.build(model_path, config, updatable=False, template_arguments=template_arguments or {})
    return JudgeEngine(engine, on_broken)


def engine_builder(judge: JudgeConfig, model_path: str) -> Callable[[], Awaitable[Generator]]:
    """What a `JudgeWorker` builds its generator with. Picklable.

    Args:
        model_path: the judge's Hugging Face folder, the sandbox's already made.
    """
    return functools.partial(build_judge_engine, model_path, judge.engine, template_arguments=judge.template_arguments)
