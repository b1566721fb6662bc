"""RemoteGenerator: one player's generation workers, seen as one `Generator`.

Every call has one deadline, whatever happens on the way: a worker that died or broke is asked again, or another in its place; one
that nobody waits for any more is cancelled in the worker. Does not start, restart or replace workers; Ray and the publisher in
`cluster` do.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayActorError

from actors.errors import GenerationDeadline, WorkerBroken
from protocol.channel import Lost
from protocol.link import Link
from protocol.recipe import GenerationConfig
from protocol.types import Ask, Completion

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0  # between attempts: a worker takes seconds to come back


class RemoteGenerator:
    """Implements `protocol.interfaces.Generator` over Ray actor handles of `actors.generation.GenerationWorker`.

    Args:
        workers: handles, all of one player.
        config: `deadline_s` bounds each call, waiting for dead workers included.
    """

    def __init__(self, workers: Sequence[Any], config: GenerationConfig) -> None:
        if not workers:
            raise ValueError("a RemoteGenerator needs at least one worker")
        self._workers = [Link(worker) for worker in workers]
        self._deadline_s = config.deadline_s
        self._in_flight = [0] * len(self._workers)
        self._last = len(self._workers) - 1
        self.retries = 0  # asks that were put again because a worker was lost

    async def generate(self, ask: Ask) -> list[Completion]:
        """See `GenerationWorker.generate`.

        Raises:
            GenerationDeadline: no worker answered within `generation.deadline_s`.
            PromptTooLong: as the worker says.
        """
        end = time.monotonic() + self._deadline_s
        wait_s, avoid = FIRST_WAIT_S, None
        while True:
            at = self._choose(avoid)
            try:
                return await self._ask(at, ask, end)
            except (RayActorError, Lost, WorkerBroken) as error:
                self.retries += 1
                avoid, why = at, str(error) if isinstance(error, Lost) else type(error).__name__
            if time.monotonic() + wait_s >= end:
                raise GenerationDeadline(f"no worker answered within generation.deadline_s {self._deadline_s}: {why}")
            await asyncio.sleep(wait_s)
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)

    def _choose(self, avoid: int | None) -> int:
        """The least busy worker, round-robin among equals; not the one that just failed if there is another."""
        n = len(self._workers)
        order = [(self._last + 1 + k) % n for k in range(n)]
        self._last = min(order, key=lambda at: (at == avoid and n > 1, self._in_flight[at]))
        return self._last

    async def _ask(self, at: int, ask: Ask, end: float) -> list[Completion]:
        self._in_flight[at] += 1
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())):
                completions: list[Completion] = await self._workers[at].call("generate", ask)
            return completions
        except TimeoutError:
            raise GenerationDeadline(f"no completion within generation.deadline_s {self._deadline_s}") from None
        finally:
            self._in_flight[at] -= 1
