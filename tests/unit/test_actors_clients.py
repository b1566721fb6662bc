"""RemoteGenerator against fake handles: who is asked, and what happens when one dies or nobody answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from actors import clients
from actors.clients import RemoteGenerator
from actors.errors import GenerationDeadline, PromptTooLong, WorkerBroken
from protocol.recipe import GenerationConfig
from protocol.types import Ask, Sampling

ASK = Ask("a", ({"role": "user", "content": "x"},), (1,), Sampling(1.0, 1.0, 8))
CONFIG = GenerationConfig(deadline_s=2.0)


class FakeHandle:
    """`handle.generate.remote(ask)` as Ray has it. Each call runs the next of `plays`, the last one for ever."""

    def __init__(self, *plays: Callable[[], Awaitable[Any]]) -> None:
        self.plays = list(plays)
        self.calls = 0
        self.generate = self

    def remote(self, ask: Ask) -> Awaitable[Any]:
        self.calls += 1
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        return asyncio.ensure_future(play())


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


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(clients.ray, "cancel", seen.append)
    return seen


async def test_asks_spread_over_the_workers() -> None:
    workers = [FakeHandle(slow) for _ in range(3)]
    remote = RemoteGenerator(workers, CONFIG)
    await asyncio.gather(*(remote.generate(ASK) for _ in range(9)))
    assert [w.calls for w in workers] == [3, 3, 3]


async def test_a_busy_worker_is_passed_over(cancelled: list[Any]) -> None:
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
    assert len(cancelled) == 1  # nobody waits for it, so the engine is told


@pytest.mark.parametrize(
    "error", [ActorDiedError(), ActorUnavailableError("gone", b"0" * 16), WorkerBroken("half loaded")]
)
async def test_a_lost_worker_is_asked_again_or_another_in_its_place(error: Exception) -> None:
    lost, other = FakeHandle(raises(error)), FakeHandle(answers)
    remote = RemoteGenerator([lost, other], CONFIG)
    assert await remote.generate(ASK) == ["completion"]
    assert (lost.calls, other.calls, remote.retries) == (1, 1, 1)

    back = FakeHandle(raises(error), answers)
    assert await RemoteGenerator([back], CONFIG).generate(ASK) == ["completion"]
    assert back.calls == 2


@pytest.mark.parametrize("play", [hangs, raises(ActorDiedError())], ids=["hangs", "stays dead"])
async def test_no_answer_ends_at_the_deadline(play: Callable[[], Awaitable[Any]], cancelled: list[Any]) -> None:
    remote = RemoteGenerator([FakeHandle(play)], GenerationConfig(deadline_s=0.5))
    async with asyncio.timeout(2.0):
        with pytest.raises(GenerationDeadline, match=r"deadline_s 0\.5"):
            await remote.generate(ASK)


async def test_what_the_game_must_know_is_not_asked_again() -> None:
    worker = FakeHandle(raises(PromptTooLong("too long")))
    with pytest.raises(PromptTooLong):
        await RemoteGenerator([worker], CONFIG).generate(ASK)
    assert worker.calls == 1
