"""Busy seconds are those with something in hand, however much of it; the inbox counts its questions so."""

import asyncio
from collections.abc import Callable
from typing import Any

from protocol.busy import BusyClock
from protocol.exchange import Batch, Posted, Vitals
from protocol.inbox import Inbox


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_seconds_count_while_anything_is_in_hand_and_once() -> None:
    clock = Clock()
    busy = BusyClock(clock)
    seen = []
    for now, in_hand in ((1.0, 0), (2.0, 1), (5.0, 3), (9.0, 1), (10.0, 0), (20.0, 0), (30.0, 2)):
        clock.now = now
        busy.note(in_hand)
        seen.append(busy.seconds)
    assert seen == [0.0, 0.0, 3.0, 7.0, 8.0, 8.0, 8.0]
    clock.now = 31.5
    assert busy.seconds == 9.5  # those that still run count, too


async def test_a_worker_is_busy_from_a_question_to_its_answer() -> None:
    clock, go = Clock(), asyncio.Event()

    async def answer(body: Any, begin: Callable[[], None]) -> Any:
        await go.wait()
        return body

    inbox = Inbox(answer, lambda: Vitals(ready=True), clock)
    clock.now = 5.0
    asked = asyncio.create_task(inbox.exchange("a", Batch((Posted(1, 2, "x"),)), 5.0))
    await asyncio.sleep(0)
    clock.now = 8.0
    assert inbox.busy_s == 3.0
    go.set()
    await asked
    clock.now = 20.0
    assert inbox.busy_s == 3.0


async def test_a_question_that_is_given_up_keeps_nobody_busy() -> None:
    clock = Clock()

    async def never(body: Any, begin: Callable[[], None]) -> Any:
        await asyncio.Event().wait()

    inbox = Inbox(never, lambda: Vitals(ready=True), clock)
    await inbox.exchange("a", Batch((Posted(1, 1, "x"),)), 0.0)
    clock.now = 2.0
    await inbox.exchange("a", Batch(given_up=(1,)), 0.0)
    clock.now = 9.0
    assert inbox.busy_s == 2.0
