"""A version that its learner sends itself: it says how, or that it cannot, or says nothing in time; once."""

import asyncio

from cluster.publish.transfer import NativeTransfer
from protocol.types import NativeUpdate

UPDATE = NativeUpdate({"how": 1})


async def test_every_push_hears_how_the_learner_sends_it() -> None:
    transfer = NativeTransfer(3)
    waiting = [asyncio.create_task(transfer.wait(5.0)) for _ in range(2)]
    await asyncio.sleep(0)
    assert transfer.settle(UPDATE)
    assert await asyncio.gather(*waiting) == [UPDATE, UPDATE]


async def test_a_learner_that_says_nothing_in_time_may_not_send_any_more() -> None:
    transfer = NativeTransfer(3)
    assert await transfer.wait(0.01) is None
    assert not transfer.settle(UPDATE) and await transfer.wait(0.01) is None


async def test_a_learner_that_cannot_ends_the_wait_at_once() -> None:
    transfer = NativeTransfer(3)
    assert transfer.settle(None) and not transfer.settle(UPDATE)
    async with asyncio.timeout(60.0):
        assert await transfer.wait(60.0) is None


async def test_pushes_are_waited_for_however_they_end() -> None:
    async def fail() -> None:
        raise RuntimeError("evicted")

    transfer = NativeTransfer(3)
    transfer.pushes = {"a": asyncio.create_task(asyncio.sleep(0)), "b": asyncio.create_task(fail())}
    await transfer.wait_for_pushes()
    assert all(push.done() for push in transfer.pushes.values())
