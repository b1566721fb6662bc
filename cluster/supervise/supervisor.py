"""Looks at every generation and judge worker now and then, starts those that are down and replaces those that hang.

A thin shell: `health` decides. Invariants:
- every worker is looked at, whether or not it is ever pushed to, and one that does not answer holds up no other;
- every replacement is counted by its reason;
- a start is asked for once at a time, and has a deadline; after one that failed the next waits, longer each time.

How a worker is started and ended is its `Keeper`'s: a generation worker's is the publisher, which also keeps its version.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ray
import structlog
from ray.exceptions import RayActorError, RayError

from cluster.calls import ask
from cluster.supervise.health import Action, Checkup, Replace, Start, State, WorkerHealth
from protocol import metrics as m
from protocol.errors import last_line
from protocol.exchange import Vitals
from protocol.meter import meter
from protocol.pace import backoff_s
from protocol.recipe import HealthConfig

START_PAUSE_S, START_PAUSE_MAX_S = 5.0, 60.0  # after a start that failed; twice as long after each further one in a row

log = structlog.get_logger(__name__)


class Keeper(Protocol):
    """Starts and ends one kind of worker."""

    async def start(self, role: str) -> None:
        """Has the worker's engine built. Returns when it is, or when another sees to it."""
        ...

    async def replace(self, role: str, reason: str) -> bool:
        """Ends the worker's process; Ray starts another, which has no engine. False if another sees to it already."""
        ...


class JudgeKeeper:
    """Of judge workers.

    Args:
        judges: handles by role.
        start_deadline_s: `judge.engine.start_deadline_s`.
    """

    def __init__(self, judges: Mapping[str, Any], start_deadline_s: float) -> None:
        self._judges, self._start_deadline_s = judges, start_deadline_s

    async def start(self, role: str) -> None:
        """See `Keeper.start`."""
        await ask(self._judges[role], "start", part=role, limit_s=self._start_deadline_s)

    async def replace(self, role: str, reason: str) -> bool:
        """See `Keeper.replace`."""
        ray.kill(self._judges[role], no_restart=False)
        return True


class GenerationKeeper:
    """Of generation workers: their publisher starts them, with the version that is for them.

    Args:
        publisher: the actor's handle.
        names: the publisher's name of each role.
        answer_s: for the publisher's answer.
    """

    def __init__(self, publisher: Any, names: Mapping[str, str], answer_s: float = 60.0) -> None:
        self._publisher, self._names, self._answer_s = publisher, names, answer_s

    async def start(self, role: str) -> None:
        """See `Keeper.start`."""
        await self._ask(role, "engine_lost", False)

    async def replace(self, role: str, reason: str) -> bool:
        """See `Keeper.replace`."""
        return await self._ask(role, reason, True)

    async def _ask(self, role: str, reason: str, kill: bool) -> bool:
        name, limit_s = self._names[role], self._answer_s
        return bool(await ask(self._publisher, "restart", name, reason, kill, part="publisher-0", limit_s=limit_s))


@dataclass(frozen=True, slots=True)
class Supervised:
    """A worker that is looked after."""

    handle: Any
    keeper: Keeper
    start_deadline_s: float


@dataclass(frozen=True, slots=True)
class _Failures:
    """Of one worker: starts that failed in a row, and until when the next waits."""

    in_a_row: int = 0
    until_s: float = 0.0


_NONE = _Failures()


class Supervisor:
    """See the module's docstring.

    Args:
        workers: by role.
        config: the recipe's `health` section.
        missed: what the workers' callers counted last, by role (`Checkup.missed`).
    """

    def __init__(
        self, workers: Mapping[str, Supervised], config: HealthConfig, missed: Callable[[], Mapping[str, int]]
    ) -> None:
        self._workers, self._config, self._missed = workers, config, missed
        now = time.monotonic()
        self._health = {role: WorkerHealth(config, w.start_deadline_s, now) for role, w in workers.items()}
        self._acting: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, _Failures] = {}  # of roles that are not up again
        self._looking: dict[str, asyncio.Task[Checkup]] = {}
        self.replaced: Counter[str] = Counter()  # by reason
        self._failed: Exception | None = None  # of its own

    def state(self, role: str) -> State:
        """How the worker is."""
        return self._health[role].state

    def states(self) -> dict[str, State]:
        """How every worker is, by role."""
        return {role: health.state for role, health in self._health.items()}

    async def run(self) -> None:
        """Looks after the workers until it is cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._config.every_s)
        except Exception as error:
            self._failed = error
            raise
        finally:
            for task in [*self._acting.values(), *self._looking.values()]:
                task.cancel()

    def check(self) -> None:
        """Raises what ended supervision, if something did: a run must not go on without it."""
        if self._failed is not None:
            raise self._failed

    async def look(self) -> None:
        """Looks at every worker once, all side by side. One that has not answered the last look is not asked again."""
        for role, worker in self._workers.items():
            if role not in self._looking:
                self._looking[role] = asyncio.create_task(_check(worker.handle))
        await asyncio.wait(self._looking.values(), timeout=self._config.every_s)
        now, missed = time.monotonic(), self._missed()
        for role, look in list(self._looking.items()):
            checkup = Checkup(missed=missed.get(role, 0))
            if look.done():
                del self._looking[role]
                found = look.result()
                checkup = Checkup(found.vitals, found.gone, checkup.missed)
            self._act(role, checkup, now)

    def _act(self, role: str, checkup: Checkup, now_s: float) -> None:
        if role in self._acting:
            return
        action = self._health[role].note(checkup, now_s)
        if self._health[role].state in ("ready", "busy"):
            self._failures.pop(role, None)
        if action is None or (isinstance(action, Start) and now_s < self._failures.get(role, _NONE).until_s):
            return
        keeper = self._workers[role].keeper
        if isinstance(action, Replace) and (look := self._looking.pop(role, None)) is not None:
            look.cancel()  # of the process that is about to end
        self._acting[role] = asyncio.create_task(self._carry_out(role, action, keeper))

    async def _carry_out(self, role: str, action: Action, keeper: Keeper) -> None:
        try:
            if isinstance(action, Replace):
                if await keeper.replace(role, action.reason):
                    log.warning("worker replaced", part=role, reason=action.reason)
                    self.replaced[action.reason] += 1
                    meter().inc(m.RESTARTS, role=role, cause=action.reason)
            else:
                log.warning("worker is down, starting it", part=role)
                await keeper.start(role)
                meter().inc(m.RESTARTS, role=role, cause="down")
        except (RayError, TimeoutError) as error:  # a later look decides anew
            before = self._failures.get(role, _NONE).in_a_row
            pause_s = backoff_s(START_PAUSE_S, START_PAUSE_MAX_S, before)
            self._failures[role] = _Failures(before + 1, time.monotonic() + pause_s)
            # With its message: what starts has seen no text of a game.
            log.error("supervision failed", part=role, again_s=pause_s, error=last_line(error))
        except Exception as error:
            self._failed = error
            raise
        finally:
            del self._acting[role]
            if (look := self._looking.pop(role, None)) is not None:
                look.cancel()  # it may have found the worker as it was before


async def _check(handle: Any) -> Checkup:
    try:
        vitals: Vitals = await handle.health.options(max_task_retries=0).remote()
    except RayActorError:
        return Checkup(gone=True)
    except RayError as error:  # `health` raised: a fault of ours, told and taken for no answer
        log.error("no checkup", error=type(error).__name__)
        return Checkup()
    return Checkup(vitals)


@contextlib.asynccontextmanager
async def supervise(supervisor: Supervisor) -> AsyncIterator[None]:
    """Supervises while the block runs. An error of the supervisor's own is raised at its end."""
    task = asyncio.create_task(supervisor.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
