"""Meeting a learner: beside the engine's work, until a deadline that the worker keeps itself; whoever is late is forgotten."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from actors.errors import JoinFailed, PushLate
from actors.weights.joining import JOINED, JOINING, Joining
from actors.weights.update import join


class Native:
    def __init__(self) -> None:
        self.closed = threading.Event()

    def shutdown(self) -> None:
        self.closed.set()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_an_engine_that_joined_in_time_is_taken() -> None:
    made = Native()
    joining = Joining(lambda: made)
    wait_until(lambda: joining.state == JOINED)
    assert joining.take() is made
    joining.abandon()
    assert not made.closed.is_set(), "it is somebody's"


def test_a_join_that_comes_back_late_is_shut_down_and_never_taken() -> None:
    made, gate = Native(), threading.Event()

    def make() -> Native:
        gate.wait(10)
        return made

    joining = Joining(make)
    assert joining.state == JOINING
    joining.abandon()
    gate.set()
    assert made.closed.wait(10) and joining.take() is None


class Engine:
    """Serves while its workers join."""

    def __init__(self, *states: str) -> None:
        self.states, self.looks, self.abandoned, self.served = states, 0, False, 0

    async def begin_join(self, transport: str, native: dict[str, Any]) -> None:
        self.asked = (transport, native)

    async def read_join(self) -> list[str]:
        self.looks += 1
        return [*self.states] if self.looks > 2 else ["joining"] * len(self.states)

    async def abandon_join(self) -> None:
        self.abandoned = True


async def test_a_join_ends_when_every_worker_of_the_engine_has_joined() -> None:
    engine = Engine("joined", "joined")
    await join(engine, "nccl", {"rank_offset": 1}, 10.0)
    assert engine.asked == ("nccl", {"rank_offset": 1}) and engine.looks == 3 and not engine.abandoned


async def test_a_worker_keeps_the_deadline_of_a_join_itself() -> None:
    engine = Engine("joined", "joining")  # a member of the group is absent, and NCCL has no timeout
    with pytest.raises(PushLate) as late:
        await join(engine, "nccl", {}, 0.2)
    assert late.value.reason == "join_deadline" and engine.abandoned


async def test_a_join_that_fails_or_is_cancelled_is_forgotten() -> None:
    engine = Engine("joined", "failed: ConnectionError: no route")
    with pytest.raises(JoinFailed, match="no route"):
        await join(engine, "nccl", {}, 10.0)
    assert engine.abandoned
    engine = Engine("joining")
    task = asyncio.create_task(join(engine, "nccl", {}, 10.0))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.abandoned
