"""RemoteGenerator: one player's generation workers, seen as one `Generator`.

A worker that died, broke or hangs costs the ask a moment: `actors.pool` puts it to another. Knows no worker and restarts none.
"""

from actors.errors import GenerationDeadline
from protocol.interfaces import Workers
from protocol.types import Ask, Completion


class RemoteGenerator:
    """Implements `protocol.interfaces.Generator` over `actors.generation.GenerationWorker`s.

    Args:
        workers: of one player.
        deadline_s: `generation.deadline_s`: bounds each ask, waiting for a worker included.
    """

    def __init__(self, workers: Workers, deadline_s: float) -> None:
        self._workers, self._deadline_s = workers, deadline_s

    async def generate(self, ask: Ask) -> list[Completion]:
        """See `GenerationWorker.generate`.

        Raises:
            GenerationDeadline: no worker answered within `generation.deadline_s`.
            PromptTooLong: as the worker says.
        """
        try:
            completions: list[Completion] = await self._workers.ask(ask, len(ask.seeds), self._deadline_s)
        except TimeoutError:
            raise GenerationDeadline(f"no completion within generation.deadline_s {self._deadline_s:g}") from None
        return completions
