"""The worker's end of the exchange, on a real loop with short times."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from protocol.exchange import Answer, Batch, Posted, Replies, Vitals
from protocol.inbox import GATHER_S, GONE_S, WAITING, Inbox, make_portable

LONG_S = 30.0


class Bench:
    """An inbox whose asks end when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ready = True
        self.ends: dict[Any, asyncio.Future[Any]] = {}
        self.begins: dict[Any, Callable[[], None]] = {}
        self.ran: list[Any] = []
        self.cancelled: list[Any] = []
        self.inbox = Inbox(self.run, lambda: Vitals(ready=self.ready, steps=7), lambda: self.now_s)

    async def run(self, body: Any, begin: Callable[[], None]) -> Any:
        self.ran.append(body)
        self.begins[body] = begin
        self.ends[body] = asyncio.get_running_loop().create_future()
        try:
            return await self.ends[body]
        except asyncio.CancelledError:
            self.cancelled.append(body)
            raise

    def call(self, *asks: int, caller: str = "a", given_up: tuple[int, ...] = (), wait_s: float = LONG_S) -> Any:
        """An exchange, as a task; each ask weighs its own number."""
        batch = Batch(tuple(Posted(ask, ask, ask) for ask in asks), given_up)
        return asyncio.create_task(self.inbox.exchange(caller, batch, wait_s))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with asyncio.timeout(20.0):
        yield bench


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def test_answers_that_come_together_travel_in_one_reply(bench: Bench) -> None:
    call = bench.call(1, 2, 3)
    await settle()
    bench.ends[2].set_result("two")
    await asyncio.sleep(GATHER_S / 4)
    bench.ends[1].set_result("one")
    reply: Replies = await call
    assert reply.answers == (Answer(2, "two"), Answer(1, "one"))
    assert reply.held == (3,)
    assert reply.vitals == Vitals(ready=True, running=3, steps=7)
    assert (await bench.call(wait_s=0.0)).answers == ()  # once


async def test_without_an_answer_it_returns_when_its_time_is_up(bench: Bench) -> None:
    reply: Replies = await bench.call(1, wait_s=0.01)
    assert (reply.answers, reply.held) == ((), (1,))


async def test_the_first_token_is_told_once(bench: Bench) -> None:
    call = bench.call(1, 2, wait_s=0.05)
    await settle()
    bench.begins[2]()
    bench.begins[2]()
    assert (await call).begun == (2,)
    assert (await bench.call(wait_s=0.0)).begun == ()


async def test_the_oldest_exchange_gets_the_answer(bench: Bench) -> None:
    first = bench.call(1, 2)
    await settle()
    second = bench.call()
    await settle()
    bench.ends[1].set_result("one")
    assert (await first).answers == (Answer(1, "one"),)
    assert not second.done()
    bench.ends[2].set_result("two")
    assert (await second).answers == (Answer(2, "two"),)


async def test_at_most_so_many_wait_and_the_oldest_goes(bench: Bench) -> None:
    calls = []
    for ask in range(1, WAITING + 2):
        calls.append(bench.call(ask))
        await settle()
    assert [call.done() for call in calls] == [True, *[False] * WAITING]
    assert calls[0].result().held == tuple(range(1, WAITING + 2))
    bench.ends[1].set_result("one")
    assert (await calls[1]).answers == (Answer(1, "one"),)


async def test_no_more_wait_when_several_arrive_at_once(bench: Bench) -> None:
    calls = [bench.call(ask) for ask in range(1, 7)]
    await settle()
    assert [call.done() for call in calls] == [*[True] * (6 - WAITING), *[False] * WAITING]
    bench.ends[1].set_result("one")
    assert (await calls[6 - WAITING]).answers == (Answer(1, "one"),)


async def test_each_caller_gets_its_own(bench: Bench) -> None:
    a, b = bench.call(1, caller="a"), bench.call(2, caller="b")
    await settle()
    bench.ends[2].set_result("two")
    assert (await b).answers == (Answer(2, "two"),)
    assert not a.done()
    bench.ends[1].set_result("one")
    reply = await a
    assert reply.answers == (Answer(1, "one"),) and reply.vitals.running == 0


async def test_the_load_is_of_all_callers(bench: Bench) -> None:
    await bench.call(3, caller="a", wait_s=0.0)
    reply: Replies = await bench.call(4, caller="b", wait_s=0.0)
    assert reply.vitals.running == 7 and bench.inbox.vitals().running == 7
    assert (await bench.call(caller="a", given_up=(3,), wait_s=0.0)).vitals.running == 4


async def test_a_worker_that_is_not_ready_answers_at_once_and_holds_nothing(bench: Bench) -> None:
    await bench.call(1, wait_s=0.0)
    bench.ready = False
    reply: Replies = await bench.call(2)
    assert (reply.vitals.ready, reply.answers, reply.held) == (False, (), ())
    await settle()
    assert bench.ran == [1] and bench.cancelled == [1]
    assert bench.inbox.running == 0


async def test_what_was_answered_before_the_engine_was_lost_is_delivered(bench: Bench) -> None:
    await bench.call(1, 2, wait_s=0.0)
    bench.ends[1].set_result("one")
    await settle()
    bench.ready = False
    reply: Replies = await bench.call()
    assert reply.answers == (Answer(1, "one"),) and reply.held == ()
    assert (await bench.call()).answers == ()


async def test_exchanges_that_wait_end_when_the_worker_says_that_it_is_not_ready(bench: Bench) -> None:
    first = bench.call(1)
    await settle()
    second = bench.call(2)
    await settle()
    bench.ready = False
    bench.ends[1].set_result("one")
    replies = await asyncio.gather(first, second)
    assert [reply.vitals.ready for reply in replies] == [False, False]
    assert [reply.answers for reply in replies] == [(Answer(1, "one"),), ()]
    assert [reply.held for reply in replies] == [(), ()]
    assert bench.cancelled == [2]


async def test_what_is_given_up_is_cancelled_and_not_answered(bench: Bench) -> None:
    await bench.call(1, 2, wait_s=0.0)
    reply: Replies = await bench.call(given_up=(1, 77), wait_s=0.02)
    assert (reply.answers, reply.held) == ((), (2,))
    assert bench.cancelled == [1]


async def test_an_ask_that_is_given_up_before_it_began_is_not_held_for_ever(bench: Bench) -> None:
    calls = [bench.call(1, wait_s=0.0), bench.call(given_up=(1,), wait_s=0.0)]  # both came while the loop was busy
    await asyncio.gather(*calls)
    reply: Replies = await bench.call(wait_s=0.0)
    assert reply.held == () and reply.vitals.running == 0
    await bench.call(1, wait_s=0.0)
    assert bench.ran == [1]


async def test_an_ask_given_up_and_put_again_is_run_again(bench: Bench) -> None:
    await bench.call(1, wait_s=0.0)
    call = bench.call(1, given_up=(1,))
    await settle()
    assert bench.ran == [1, 1] and bench.cancelled == [1] and bench.inbox.running == 1
    bench.ends[1].set_result("again")
    assert (await call).answers == (Answer(1, "again"),)


async def test_an_ask_that_it_has_already_is_not_run_twice(bench: Bench) -> None:
    await bench.call(1, wait_s=0.0)
    reply: Replies = await bench.call(1, wait_s=0.0)
    assert bench.ran == [1] and reply.vitals.running == 1


async def test_the_asks_of_a_caller_that_fell_silent_are_cancelled(bench: Bench) -> None:
    await bench.call(1, caller="silent", wait_s=0.0)
    await bench.call(2, caller="alive", wait_s=0.0)
    bench.now_s += GONE_S - 1.0
    await bench.call(caller="alive", wait_s=0.0)
    assert bench.inbox.forgotten == 0
    bench.now_s += 2.0
    await bench.call(caller="alive", wait_s=0.0)
    await settle()
    assert bench.cancelled == [1] and bench.inbox.forgotten == 1 and bench.inbox.running == 2
    assert (await bench.call(caller="silent", wait_s=0.0)).held == ()


async def test_a_caller_whose_exchange_waits_is_not_silent(bench: Bench) -> None:
    waiting = bench.call(1, caller="patient")
    await settle()
    bench.now_s += 10 * GONE_S
    await bench.call(caller="b", wait_s=0.0)
    assert bench.inbox.forgotten == 0 and not waiting.done()
    bench.ends[1].set_result("one")
    assert (await waiting).answers == (Answer(1, "one"),)


async def test_an_exchange_that_is_cancelled_keeps_no_other_from_the_answers(bench: Bench) -> None:
    first = bench.call(1, 2)
    await settle()
    bench.ends[1].set_result("one")
    await settle()  # it gathers
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await bench.call()).answers == (Answer(1, "one"),)


async def test_an_exception_travels_with_its_lines_and_without_its_traceback(bench: Bench) -> None:
    call = bench.call(1)
    await settle()
    bench.ends[1].set_exception(KeyError("what it quotes"))
    (answer,) = (await call).answers
    assert isinstance(answer.error, KeyError) and answer.error.args == ("what it quotes",)
    assert answer.error.__traceback__ is None
    (note,) = answer.error.__notes__
    assert note.startswith("in the worker: KeyError, ") and note.endswith(" run") and "quotes" not in note


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("secret")
        self.what = lambda: None


class Unbuildable(Exception):
    """Pickles, but cannot be rebuilt: its arguments are not its constructor's."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize("error", [Unpicklable(), Unbuildable(1, 2)])
def test_an_exception_that_cannot_travel_becomes_its_name(error: Exception) -> None:
    portable = make_portable(error)
    assert type(portable) is RuntimeError
    assert str(portable) == f"{type(error).__name__}, which cannot be pickled"
