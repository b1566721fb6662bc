"""RemoteGenerator over fake workers: what a game sees of the workers' life, and what it must not see."""

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.clients import RemoteGenerator
from actors.errors import GenerationDeadline, PromptTooLong, WorkerBroken
from actors.pool import WorkerPool
from protocol.recipe import RouterConfig
from protocol.types import Ask, Sampling
from tests.unit.workers import FakeWorker, until

ASK = Ask("a", ({"role": "user", "content": "x"},), (1, 2, 3), Sampling(1.0, 1.0, 8))


async def answers(ask: Ask) -> list[str]:
    await asyncio.sleep(0.02)
    return ["completion"] * len(ask.seeds)


async def hangs(ask: Ask) -> Any:
    await asyncio.sleep(60.0)


def remote(*workers: FakeWorker, deadline_s: float = 20.0) -> RemoteGenerator:
    return RemoteGenerator(WorkerPool(workers, RouterConfig(hedge_s=0.5), "test"), deadline_s)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.router_state.AVOID_S", 0.1)
    monkeypatch.setattr("protocol.router.PROBE_S", 0.1)


async def test_asks_spread_over_the_workers_by_their_samples() -> None:
    workers = [FakeWorker(answers) for _ in range(3)]
    generator = remote(*workers)
    assert (await asyncio.gather(*(generator.generate(ASK) for _ in range(9))))[0] == ["completion"] * 3
    assert [len(w.calls) for w in workers] == [3, 3, 3]
    assert {posted.questions for w in workers for batch in w.batches for posted in batch.asks} == {3}


async def test_a_worker_that_broke_over_an_ask_is_not_the_games_business() -> None:
    async def breaks(ask: Ask) -> Any:
        raise WorkerBroken("half loaded")

    assert await remote(FakeWorker(breaks), FakeWorker(answers)).generate(ASK) == ["completion"] * 3


async def test_a_worker_that_dies_over_an_ask_is_asked_again_when_it_is_back() -> None:
    worker = FakeWorker(hangs)
    asked = asyncio.create_task(remote(worker).generate(ASK))
    await until(lambda: worker.calls)
    worker.die(ActorDiedError())
    worker.answer = answers
    asyncio.get_running_loop().call_later(0.1, worker.come_back)
    assert await asked == ["completion"] * 3


@pytest.mark.parametrize("state", ["hangs", "dead", "not ready"])
async def test_no_answer_ends_at_the_deadline(state: str) -> None:
    worker = FakeWorker(hangs, ready=state != "not ready")
    if state == "dead":
        worker.die()
    async with asyncio.timeout(60.0):
        with pytest.raises(GenerationDeadline, match=r"deadline_s 0\.5"):
            await remote(worker, deadline_s=0.5).generate(ASK)


async def test_what_the_game_must_know_is_not_asked_again() -> None:
    async def refuses(ask: Ask) -> Any:
        raise PromptTooLong("too long")

    worker, other = FakeWorker(refuses), FakeWorker(answers)
    with pytest.raises(PromptTooLong):
        await remote(worker, other).generate(ASK)
    assert len(worker.calls) == 1 and other.calls == []
