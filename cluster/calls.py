"""Actors as other parts hold and ask them: a handle by name, and asking again until a deadline.

A handle inside the constructor arguments of an actor that may restart makes Ray warn that the restart could fail. A name cannot
be lost: it is looked up once in each process.

Asking: an actor that is away (it died, restarts, or its node is cut off) is asked again after a pause, until the deadline. So the
method must be repeatable. What the method itself raises is the answer, and is raised.
"""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from protocol.errors import UserError, last_line

NAMESPACE = "advgame"
_MISTAKE = f"{UserError.__module__}.{UserError.__qualname__}: "  # as a traceback's last line begins
PAUSE_S = 0.5  # between two asks of an actor that is away

AWAY: tuple[type[RayError], ...] = (RayActorError,)  # what Ray says of an actor that is away


@functools.cache
def _look_up(name: str) -> Any:
    return ray.get_actor(name, namespace=NAMESPACE)


class NamedActor:
    """A handle of the actor of that name: `NamedActor(name).method.remote(...)`. Picklable."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[type["NamedActor"], tuple[str]]:
        return NamedActor, (self._name,)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        return getattr(_look_up(self._name), method)


class Unavailable(TimeoutError):
    """An actor did not answer before the deadline: it is overloaded, or does not come back. Its `__cause__` says which.

    Args:
        part: the actor's role and number, for example "publisher-0".
        method: what it was asked.
        waited_s: seconds.
    """

    def __init__(self, part: str, method: str, waited_s: float) -> None:
        super().__init__(f"{part}: no answer to {method} within {waited_s:.0f} s; see logs/{part}.log")
        self._args = (part, method, waited_s)

    def __reduce__(self) -> tuple[type["Unavailable"], tuple[str, str, float]]:
        return type(self), self._args


class Attempts:
    """When one call is tried again and when it is given up. No Ray call in it, and no waiting.

    Args:
        part, method: as for `Unavailable`.
        limit_s: for all attempts together, from now.
        away: errors after which the actor is asked again.
        pause_s: before it is.
        clock: gives seconds.
    """

    def __init__(
        self,
        part: str,
        method: str,
        limit_s: float,
        away: tuple[type[RayError], ...] = AWAY,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._part, self._method, self._limit_s = part, method, limit_s
        self._away, self._pause_s, self._clock = away, pause_s, clock
        self._deadline = clock() + limit_s

    def left_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._deadline - self._clock())

    def pause_after(self, error: Exception) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            Unavailable: the attempt was not answered in time, or the deadline comes before the next one.
            Exception: `error` itself, where it is what the method raised or nothing that passes.
        """
        if isinstance(error, RayTaskError):  # first: of a method that raised TimeoutError it is a TimeoutError, too
            raise error
        if isinstance(error, self._away):
            if self.left_s() >= self._pause_s:
                return self._pause_s
        elif not isinstance(error, TimeoutError):
            raise error
        raise Unavailable(self._part, self._method, self._limit_s) from error


async def ask(handle: Any, method: str, *args: Any, part: str, limit_s: float, pause_s: float = PAUSE_S) -> Any:
    """The answer of an actor's method. See `Attempts` for the arguments and what is raised."""
    attempts = Attempts(part, method, limit_s, pause_s=pause_s)
    while True:
        try:
            async with asyncio.timeout(attempts.left_s()):
                return await getattr(handle, method).remote(*args)
        except (RayError, TimeoutError) as error:
            await asyncio.sleep(attempts.pause_after(error))


def ask_blocking(
    handle: Any,
    method: str,
    *args: Any,
    part: str,
    limit_s: float,
    away: tuple[type[RayError], ...] = AWAY,
    fetch: Callable[[Any, float], Any] = lambda answer, _left_s: answer,
) -> Any:
    """As `ask`, and blocks the thread.

    Args:
        fetch: makes of the answer what is wanted, in the seconds that are left. Where it fails, the actor is asked again, too.
    """
    attempts = Attempts(part, method, limit_s, away)
    while True:
        try:
            answer = ray.get(getattr(handle, method).remote(*args), timeout=attempts.left_s())
            return fetch(answer, attempts.left_s())
        except (RayError, TimeoutError) as error:
            time.sleep(attempts.pause_after(error))


def find_mistake(error: BaseException | None) -> UserError | None:
    """The user's mistake that a remote error carries: a task's, a learner group's, or an actor's that died of it in its start."""
    while error is not None:
        if isinstance(error, UserError):
            return UserError(str(getattr(error, "cause", None) or error))  # Ray's own class prints a remote traceback
        if isinstance(error, RayActorError) and (told := last_line(error)).startswith(_MISTAKE):
            return UserError(told.removeprefix(_MISTAKE))
        error = getattr(error, "cause", None) or error.__cause__
    return None
