"""RemoteGenerator against fake handles: who is asked, and what happens when one dies or nobody answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from actors.clients import RemoteGenerator
from actors.errors import GenerationDeadline, PromptTooLong, WorkerBroken
from protocol.channel import Lost
from protocol.recipe import GenerationConfig
from protocol.types import Ask, Sampling
from tests.unit.direct import DirectHandle

ASK = Ask("a", ({"role": "user", "content": "x"},), (1,), Sampling(1.0, 1.0, 8))
CONFIG = GenerationConfig(deadline_s=2.0)


class FakeHandle(DirectHandle):
    """Each call of `generate` runs the next of `plays`, the last one for ever."""

    def __init__(self, *plays: Callable[[], Awaitable[Any]]) -> None:
        super().__init__()
        self.plays = list(plays)
        self.calls = self.cancelled = 0

    async def generate(self, ask: Ask) -> Any:
        self.calls += 1
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        try:
            return await play()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def answers() -> list[str]:
    return ["completion"]


def raises(error: Exception) -> Callable[[], Awaitable[Any]]:
    async def play() -> Any:
        raise error

    return play


async def hangs() -> Any:
    await asyncio.sleep(60)


async def slow() -> list[str]:
    await asyncio.sleep(0.05)
    return ["completion"]


def dead(error: Exception) -> FakeHandle:
    handle = FakeHandle(answers)
    handle.dead = error
    return handle


async def test_asks_spread_over_the_workers() -> None:
    workers = [FakeHandle(slow) for _ in range(3)]
    remote = RemoteGenerator(workers, CONFIG)
    await asyncio.gather(*(remote.generate(ASK) for _ in range(9)))
    assert [w.calls for w in workers] == [3, 3, 3]


async def test_a_busy_worker_is_passed_over() -> None:
    stuck, free = FakeHandle(hangs), FakeHandle(answers)
    remote = RemoteGenerator([stuck, free], CONFIG)
    first = asyncio.create_task(remote.generate(ASK))
    await asyncio.sleep(0)
    for _ in range(4):
        await remote.generate(ASK)
    assert (stuck.calls, free.calls) == (1, 4)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    async with asyncio.timeout(60):
        while not stuck.cancelled:  # noqa: ASYNC110  # nobody waits for it, so the engine is told
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("error", [WorkerBroken("half loaded"), Lost("the connection ended")])
async def test_a_lost_worker_is_asked_again_or_another_in_its_place(error: Exception) -> None:
    lost, other = FakeHandle(raises(error)), FakeHandle(answers)
    remote = RemoteGenerator([lost, other], CONFIG)
    assert await remote.generate(ASK) == ["completion"]
    assert (lost.calls, other.calls, remote.retries) == (1, 1, 1)

    back = FakeHandle(raises(error), answers)
    assert await RemoteGenerator([back], CONFIG).generate(ASK) == ["completion"]
    assert back.calls == 2


@pytest.mark.parametrize("error", [ActorDiedError(), ActorUnavailableError("gone", b"0" * 16)])
async def test_a_worker_that_ray_cannot_find_is_asked_again_or_another_in_its_place(error: Exception) -> None:
    lost, other = dead(error), FakeHandle(answers)
    remote = RemoteGenerator([lost, other], CONFIG)
    assert await remote.generate(ASK) == ["completion"]
    assert (lost.found, other.calls, remote.retries) == (1, 1, 1)

    asyncio.get_running_loop().call_later(0.1, lost.come_back)
    assert await RemoteGenerator([lost], CONFIG).generate(ASK) == ["completion"]


async def test_a_worker_that_dies_over_an_ask_is_asked_again_when_it_is_back() -> None:
    worker = FakeHandle(hangs, answers)
    remote = RemoteGenerator([worker], CONFIG)
    asked = asyncio.create_task(remote.generate(ASK))
    async with asyncio.timeout(60):
        while not worker.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    worker.die(ActorDiedError())
    asyncio.get_running_loop().call_later(0.1, worker.come_back)
    assert await asked == ["completion"]


@pytest.mark.parametrize("handle", [lambda: FakeHandle(hangs), lambda: dead(ActorDiedError())], ids=["hangs", "dead"])
async def test_no_answer_ends_at_the_deadline(handle: Callable[[], FakeHandle]) -> None:
    remote = RemoteGenerator([handle()], GenerationConfig(deadline_s=0.5))
    async with asyncio.timeout(60.0):
        with pytest.raises(GenerationDeadline, match=r"deadline_s 0\.5"):
            await remote.generate(ASK)


async def test_what_the_game_must_know_is_not_asked_again() -> None:
    worker = FakeHandle(raises(PromptTooLong("too long")))
    with pytest.raises(PromptTooLong):
        await RemoteGenerator([worker], CONFIG).generate(ASK)
    assert worker.calls == 1
