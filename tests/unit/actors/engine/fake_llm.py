"""A stand-in for vLLM's `AsyncLLM` in the order of its messages, and for the few names of vllm that the engine imports.

As in vLLM 0.32: `generate` does nothing until it is iterated; its first await suspends only until the supported tasks are known;
then the request is sent, in line with whatever `pause_generation` and the others send. EngineCore takes the messages in order.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class EngineDeadError(Exception):
    pass


class Output:
    """`RequestOutput` of one sample, and `add` as for DELTA outputs."""

    def __init__(self, tokens: list[int], finish: str | None, version: str) -> None:
        self.finished, self.num_cached_tokens = finish is not None, 0
        versions = [SimpleNamespace(version=version)] if finish else None
        self.outputs = [
            SimpleNamespace(
                token_ids=tokens,
                logprobs=[{t: SimpleNamespace(logprob=-float(t))} for t in tokens],
                text="".join(f"t{t} " for t in tokens),
                finish_reason=finish,
                weight_versions=versions,
            )
        ]

    def add(self, later: "Output", aggregate: bool) -> None:
        assert aggregate
        (mine,), (more,) = self.outputs, later.outputs
        mine.token_ids, mine.logprobs = mine.token_ids + more.token_ids, mine.logprobs + more.logprobs
        mine.text += more.text
        mine.finish_reason, mine.weight_versions = more.finish_reason, more.weight_versions
        self.finished |= later.finished


class FakeLLM:
    """Attributes: `arrivals`, of each request its salt, and the version and pause of EngineCore when it came; `params` of each."""

    def __init__(self, finish: str = "length") -> None:
        self.model_config = SimpleNamespace(dtype="torch.float32")
        self.finish = finish
        self.version, self.core_paused = "0", False
        self.arrivals: list[tuple[str, str, bool]] = []
        self.params: list[Any] = []
        self.dead = False
        self._tasks_known = False
        self._resumed = asyncio.Event()
        self._resumed.set()

    async def get_supported_tasks(self) -> tuple[str, ...]:
        if not self._tasks_known:
            await asyncio.sleep(0)
            self._tasks_known = True
        return ("generate",)

    async def generate(self, prompt: dict[str, Any], params: Any, request_id: str) -> AsyncIterator[Output]:
        await self.get_supported_tasks()
        if self.dead:
            raise EngineDeadError
        self.arrivals.append((prompt["cache_salt"], self.version, self.core_paused))
        self.params.append(params)
        await asyncio.sleep(0)
        await self._resumed.wait()
        yield Output([7], None, self.version)
        await asyncio.sleep(0)
        yield Output([8, 9], self.finish, self.version)

    async def pause_generation(self, mode: str, clear_cache: bool) -> None:
        assert (mode, clear_cache) == ("keep", False)
        self.core_paused = True
        self._resumed.clear()
        await asyncio.sleep(0)

    async def resume_generation(self) -> None:
        self.core_paused = False
        self._resumed.set()
        await asyncio.sleep(0)

    async def finish_weight_update(self, weight_version: str) -> None:
        await asyncio.sleep(0)
        self.version = weight_version

    async def update_weight_version(self, weight_version: str) -> None:
        self.version = weight_version

    async def check_health(self) -> None:
        if self.dead:
            raise EngineDeadError

    def shutdown(self) -> None:
        self.dead = True


@pytest.fixture
def vllm_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SamplingParams` keeps its arguments; `tokens_input` gives a dict, as the real one does."""
    names: dict[str, dict[str, Any]] = {
        "vllm": {"SamplingParams": lambda **given: SimpleNamespace(**given)},
        "vllm.inputs": {},
        "vllm.inputs.engine": {"tokens_input": lambda ids, cache_salt: {"ids": ids, "cache_salt": cache_salt}},
        "vllm.sampling_params": {
            "RequestOutputKind": SimpleNamespace(DELTA="delta"),
            "StructuredOutputsParams": lambda regex: SimpleNamespace(regex=regex),
        },
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError},
    }
    for name, members in names.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
