"""The worker pool over fake handles: what travels together, and what happens when a worker dies, hangs or loses its engine."""

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError

from actors.pool import TICK_S, WorkerPool
from protocol.exchange import AskFault, WorkerFault, WorkersLost
from protocol.recipe import RouterConfig
from protocol.router import MAX_LOSSES
from tests.unit.workers import FakeWorker, until

HEDGE_S = 0.4


def pool(*workers: FakeWorker, hedge_s: float = 30.0) -> WorkerPool:
    return WorkerPool(workers, RouterConfig(hedge_s=hedge_s), "test")


async def echo(body: Any) -> Any:
    return body


async def slow(body: Any) -> Any:
    await asyncio.sleep(0.1)
    return body


async def never(body: Any) -> Any:
    await asyncio.sleep(60.0)


def raises(*errors: Exception) -> Callable[[Any], Awaitable[Any]]:
    """Raises one after another, then answers."""
    left = list(errors)

    async def answer(body: Any) -> Any:
        if left:
            raise left.pop(0)
        return body

    return answer


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.router_state.AVOID_S", 0.1)
    monkeypatch.setattr("protocol.router.PROBE_S", 0.1)


def test_a_pool_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        pool()


async def test_asks_of_one_tick_travel_in_one_call_to_each_worker() -> None:
    workers = [FakeWorker(slow), FakeWorker(slow)]
    asked = pool(*workers)
    answers = await asyncio.gather(*(asked.ask(k) for k in range(8)))
    assert answers == list(range(8))
    assert [sorted(w.calls) for w in workers] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert [len(w.batches) for w in workers] == [1, 1]
    assert asked.stats().exchanges == 2


async def test_asks_that_come_while_others_run_are_not_held_up_by_them() -> None:
    async def by_name(body: str) -> str:
        await asyncio.sleep(60.0 if body == "long" else 0.0)
        return body

    asked = pool(FakeWorker(by_name), hedge_s=30.0)
    long = asyncio.create_task(asked.ask("long"))
    await asyncio.sleep(2 * TICK_S)
    async with asyncio.timeout(10.0):  # hedge_s / 2 is how long the call that carried "long" is held
        assert await asked.ask("short") == "short"
    long.cancel()


async def test_an_ask_that_is_cancelled_is_cancelled_in_the_worker() -> None:
    worker = FakeWorker(never)
    asked = pool(worker)
    task = asyncio.create_task(asked.ask("x"))
    await until(lambda: worker.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: worker.cancelled)
    assert worker.running == 0


@pytest.mark.parametrize("error", [ActorDiedError(), ActorUnavailableError("gone", b"0" * 16)])
async def test_an_ask_of_a_worker_that_dies_over_it_goes_to_another(error: RayActorError) -> None:
    dying, other = FakeWorker(never), FakeWorker(echo)
    asked = pool(dying, other, hedge_s=30.0)
    task = asyncio.create_task(asked.ask("x"))
    await until(lambda: dying.calls)
    dying.die(error)
    assert await task == "x"
    assert other.calls == ["x"] and asked.stats().moved == 1


async def test_a_worker_that_restarts_gets_nothing_until_its_engine_is_built() -> None:
    worker, other = FakeWorker(echo), FakeWorker(slow)
    asked = pool(worker, other)
    worker.die()
    await asyncio.gather(*(asked.ask(k) for k in range(4)))
    assert worker.calls == []
    worker.come_back(ready=False)

    async def go_on_asking() -> None:
        for k in range(1000):
            await asked.ask(k)

    asking = [asyncio.create_task(go_on_asking()) for _ in range(2)]
    await until(lambda: worker.batches)  # it is asked how it is
    assert worker.calls == [] and all(not batch.asks for batch in worker.batches)
    worker.ready = True
    await until(lambda: worker.calls)
    for task in asking:
        task.cancel()


async def test_the_only_worker_is_waited_for_while_it_restarts() -> None:
    worker = FakeWorker(echo)
    worker.die()
    asyncio.get_running_loop().call_later(0.2, worker.come_back)
    async with asyncio.timeout(20.0):
        assert await pool(worker).ask("x") == "x"


async def test_a_stopped_worker_costs_its_asks_a_moment() -> None:
    stopped, other = FakeWorker(echo), FakeWorker(echo)
    stopped.hang()
    asked = pool(stopped, other, hedge_s=HEDGE_S)
    loop = asyncio.get_running_loop()
    since_s = loop.time()
    assert await asyncio.gather(*(asked.ask(k) for k in range(4))) == [0, 1, 2, 3]
    assert loop.time() - since_s >= HEDGE_S
    assert stopped.calls == [] and sorted(other.calls) == [0, 1, 2, 3]
    stats = asked.stats()
    assert (stats.hedged, stats.moved) == (2, 0)
    since_s = loop.time()
    await asyncio.gather(*(asked.ask(k) for k in range(4)))
    assert loop.time() - since_s < HEDGE_S  # it gets nothing more


async def test_a_stopped_worker_that_goes_on_hears_what_was_given_up_meanwhile() -> None:
    worker, other = FakeWorker(never), FakeWorker(echo)
    asked = pool(worker, other, hedge_s=HEDGE_S)
    task = asyncio.create_task(asked.ask("x"))
    await until(lambda: worker.calls)
    worker.hang()
    assert await task == "x"  # the other's
    await asyncio.sleep(4 * TICK_S)
    worker.go_on()
    await until(lambda: worker.cancelled)  # nothing is asked any more, and it is told all the same


async def test_what_only_one_worker_fails_of_another_is_asked() -> None:
    broken, sound = FakeWorker(raises(WorkerFault("half loaded"))), FakeWorker(echo)
    assert await pool(broken, sound).ask("x") == "x"
    assert (broken.calls, sound.calls) == (["x"], ["x"])
    assert await pool(FakeWorker(raises(WorkerFault("once")))).ask("x") == "x"


async def test_an_ask_that_breaks_every_worker_ends() -> None:
    workers = [FakeWorker(raises(WorkerFault("it broke the engine"))) for _ in range(MAX_LOSSES + 2)]
    with pytest.raises(WorkersLost):
        await pool(*workers).ask("x")
    assert sum(len(worker.calls) for worker in workers) == MAX_LOSSES


@pytest.mark.parametrize("error", [AskFault("too long"), KeyError("bug")])
async def test_any_other_error_is_the_askers_with_the_lines_it_passed(error: Exception) -> None:
    workers = [FakeWorker(raises(error)), FakeWorker(echo)]
    with pytest.raises(type(error)) as raised:
        await pool(*workers).ask("x")
    assert raised.value.__notes__[0].startswith(f"in the worker: {type(error).__name__}, ")
    assert workers[1].calls == []


async def test_an_ask_ends_at_its_limit() -> None:
    worker = FakeWorker(never)
    async with asyncio.timeout(20.0):
        with pytest.raises(TimeoutError, match="no worker answered in time"):
            await pool(worker).ask("x", limit_s=0.2)
    await until(lambda: worker.cancelled)


async def test_an_ask_ends_when_its_worker_is_not_heard_of() -> None:
    async def lasts(body: Any) -> Any:
        await asyncio.sleep(1.0)
        return body

    worker = FakeWorker(lasts)
    assert await pool(worker, hedge_s=10.0).ask("x", absent_s=0.5) == "x"  # it says that it is at it
    worker.hang()
    async with asyncio.timeout(20.0):
        with pytest.raises(TimeoutError):
            await pool(worker).ask("x", absent_s=0.5)


async def test_a_fault_in_the_call_itself_moves_its_asks() -> None:
    class Broken(FakeWorker):
        async def _take(self, *_: Any) -> Any:
            raise ValueError("a bug")

    sound = FakeWorker(echo)
    assert await pool(Broken(echo), sound).ask("x") == "x"


async def test_a_pool_travels_as_its_name_and_its_workers() -> None:
    asked = WorkerPool(["handle"], RouterConfig(hedge_s=7.0), "rollout-0")
    again = pickle.loads(pickle.dumps(asked))
    assert (again._workers, again._config, again._name) == (["handle"], RouterConfig(hedge_s=7.0), "rollout-0")
    assert again.stats() == asked.stats()


async def test_two_pools_of_one_name_do_not_take_each_others_answers() -> None:
    worker = FakeWorker(slow)
    first, second = pool(worker), pool(worker)
    assert await asyncio.gather(first.ask("a"), second.ask("b")) == ["a", "b"]


def test_a_pool_works_on_one_loop_after_another_though_a_call_was_cut_off() -> None:
    """On the first loop an ask is hedged: the call to the worker that hangs is still out when the loop ends."""
    workers: list[FakeWorker] = []

    async def first() -> WorkerPool:
        workers.extend([FakeWorker(never), FakeWorker(echo)])
        workers[0].hang()
        asked = pool(*workers, hedge_s=HEDGE_S)
        assert await asked.ask("x") == "x"
        return asked

    async def second(asked: WorkerPool) -> None:
        sound = FakeWorker(echo)
        asked._workers[:] = [sound, FakeWorker(never)]
        asked._workers[1].die()
        assert await asyncio.gather(*(asked.ask(k, limit_s=10.0) for k in range(4))) == [0, 1, 2, 3]
        await asyncio.sleep(HEDGE_S)
        assert await asked.ask(5, limit_s=10.0) == 5

    asyncio.run(second(asyncio.run(first())))
