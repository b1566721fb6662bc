"""Starts vLLM in a thread of its own, so that whoever waits for it can answer others meanwhile.

Invariants
- The thread lives as long as the engine. The kernel kills EngineCore when the *thread* that started it ends (`host_transfer` asks
  for that), so a borrowed thread of a pool would not do.
- A start that nobody waits for any more still ends: its engine is closed as soon as it is there.

vLLM makes its sockets and queues in that thread and ties them to the event loop where they are first used: the caller's.
Imports torch and vllm only there: seconds of imports, and vLLM's environment has to be set between the two.
"""

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from actors.engine.arguments import engine_arguments, prepare_environment
from actors.engine.occupancy import StepCounter
from protocol.meter import is_metered
from protocol.recipe import EngineConfig


@dataclass(frozen=True, slots=True)
class StartedLLM:
    """A running `vllm.v1.engine.async_llm.AsyncLLM` and the thread that EngineCore lives with.

    Attributes:
        import_s, build_s: seconds of the imports, and of the rest.
    """

    llm: Any
    keeper: ThreadPoolExecutor
    import_s: float
    build_s: float

    def close(self) -> None:
        """Ends the engine's processes, then the thread."""
        self.llm.shutdown()
        # Its `__del__` calls it again at the interpreter's end, where what it calls is gone, and prints a traceback.
        self.llm.shutdown = lambda: None
        self.keeper.shutdown(wait=False)


async def start_llm(model_path: str, config: EngineConfig, updatable: bool, steps: StepCounter) -> StartedLLM:
    """Starts vLLM on a model folder.

    Args:
        updatable: see `engine_arguments`.
        steps: told of every step.

    Raises:
        Exception: what vLLM raises; it ends the wait for EngineCore after `config.start_deadline_s`.
    """
    keeper = ThreadPoolExecutor(1, thread_name_prefix="engine")
    start = keeper.submit(_start, keeper, model_path, config, updatable, steps)
    try:
        return await asyncio.wrap_future(start)
    except asyncio.CancelledError:
        start.add_done_callback(_close)
        raise
    except BaseException:
        keeper.shutdown(wait=False)
        raise


def _start(
    keeper: ThreadPoolExecutor, model_path: str, config: EngineConfig, updatable: bool, steps: StepCounter
) -> StartedLLM:
    began = time.perf_counter()
    import torch

    cuda = torch.cuda.is_available()
    prepare_environment(config, cuda)
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    imported = time.perf_counter()
    llm = AsyncLLM.from_engine_args(
        AsyncEngineArgs(**engine_arguments(model_path, config, cuda, updatable)),
        stat_loggers=_stat_loggers(steps),
    )
    return StartedLLM(llm, keeper, imported - began, time.perf_counter() - imported)


def _stat_loggers(steps: StepCounter) -> list[Any]:
    """Who is told of every step: `steps`, and Ray's endpoint where this process is metered."""
    loggers: list[Any] = [lambda _config, _index: steps]
    if is_metered():
        from actors.engine.ray_series import make_stat_logger

        loggers.append(make_stat_logger())
    return loggers


def _close(start: "Future[StartedLLM]") -> None:
    if not start.cancelled() and start.exception() is None:
        start.result().close()
