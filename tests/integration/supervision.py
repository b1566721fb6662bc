"""The real supervisor over a test's workers, and the pool that asks them."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from actors.pool import WorkerPool
from cluster.supervise.supervisor import JudgeKeeper, Supervised, Supervisor, supervise
from protocol.recipe import HealthConfig, RouterConfig

START_S = 300.0


def pool_of(workers: Sequence[Any]) -> WorkerPool:
    """The workers seen as one."""
    return WorkerPool(workers, RouterConfig(), "test")


@contextlib.asynccontextmanager
async def supervised(workers: Sequence[Any]) -> AsyncIterator[Supervisor]:
    """Supervises workers while the block runs: whoever lost its engine or its process is started by its own `start`."""
    roles = {f"worker-{k}": handle for k, handle in enumerate(workers)}
    keeper = JudgeKeeper(roles, START_S)
    supervisor = Supervisor(
        {r: Supervised(h, keeper, START_S) for r, h in roles.items()}, HealthConfig(every_s=0.5), dict
    )
    async with supervise(supervisor):
        yield supervisor
