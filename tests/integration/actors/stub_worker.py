"""A generation worker whose engine is a STUB that takes time instead of computing. For tests of what happens around engines."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.engine.occupancy import Occupancy
from actors.errors import WorkerBroken
from actors.generation import GenerationWorker
from protocol.types import Ask, Completion

SLOTS, SAMPLE_S, TOKENS = 8, 0.4, 64  # samples at once, seconds and tokens of each: an engine's limit is 1,280 tokens/s


class StubEngine:
    """As `actors.engine.engine.Engine` where a `GenerationWorker` uses it. It steps while it samples, until it hangs."""

    def __init__(self) -> None:
        self.occupancy = Occupancy()
        self._places = asyncio.Semaphore(SLOTS)
        self._stepped = 0.0
        self.running = 0
        self.paused = self.hangs = self.dead = False
        self._frozen = 0

    @property
    def steps(self) -> int:
        if not self.hangs and self.running:
            self._frozen = int(time.monotonic() * 50)
        return self._frozen

    async def generate(self, ask: Ask, begin: Callable[[], None] | None = None) -> list[Completion]:
        self.running += len(ask.seeds)
        try:
            return list(await asyncio.gather(*(self._sample(begin) for _ in ask.seeds)))
        finally:
            self.running -= len(ask.seeds)

    async def _sample(self, begin: Callable[[], None] | None) -> Completion:
        async with self._places:
            if self.hangs:
                await asyncio.Event().wait()
            if begin is not None:
                begin()
            await asyncio.sleep(SAMPLE_S)
            if self.hangs:
                await asyncio.Event().wait()
        return Completion.of([1], range(TOKENS), [0.0] * TOKENS, "an answer")

    async def check_health(self) -> None:
        if self.dead:
            raise WorkerBroken("the engine's process died")

    def give_up(self) -> None:
        self.dead = True

    def close(self) -> None:
        pass


class StubGenerationWorker(GenerationWorker):
    """Builds a stub engine, as slowly as the file `slow` in `folder` says (seconds)."""

    def __init__(self, *args: Any, folder: str) -> None:
        super().__init__(*args)
        self._slow = Path(folder) / "slow"

    async def _build(self) -> None:
        await asyncio.sleep(float(self._slow.read_text()) if self._slow.is_file() else 0.0)
        self._engine = StubEngine()  # type: ignore[assignment]
        self._starts += 1

    async def hang(self) -> None:
        """The engine hangs from now on; the worker answers as before."""
        self._engine.hangs = True  # type: ignore[union-attr]
