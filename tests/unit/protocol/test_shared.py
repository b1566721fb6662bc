"""Shared memory that is gigabytes: an event loop beside it goes on, and buffers are used again."""

import asyncio
import time
from collections.abc import Callable

import numpy as np
import pytest

from protocol.packed import checksum
from protocol.shared import SharedBuffer, SharedPool

NBYTES = 192 << 20  # long enough for many turns of a loop, on any machine


async def longest_stop(work: Callable[[], object]) -> tuple[float, float]:
    """Runs `work` in a thread. Gives its seconds, and the longest of them in which the event loop did not turn."""
    began = last = time.perf_counter()
    longest = 0.0
    task = asyncio.create_task(asyncio.to_thread(work))
    while not task.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return last - began, longest


def map_new_memory() -> Callable[[], object]:
    buffer = SharedBuffer.create(NBYTES)
    return lambda: buffer.view


def hash_all() -> Callable[[], object]:
    packed = np.ones(NBYTES, np.uint8)
    return lambda: checksum(packed)


@pytest.mark.parametrize("prepare", [map_new_memory, hash_all])
async def test_a_loop_goes_on_while_a_thread_works_on_gigabytes(prepare: Callable[[], Callable[[], object]]) -> None:
    """Whoever keeps the interpreter lock stops the loop for nearly all of the time; a busy machine stops it for a part."""
    shares = []
    for _ in range(3):
        took_s, stopped_s = await longest_stop(prepare())
        shares.append(stopped_s / took_s)
    assert min(shares) < 0.6, shares


def test_what_is_let_go_stays_for_those_who_view_it() -> None:
    owner = SharedBuffer.create(8192)
    owner.view[:3] = b"abc"
    reader = SharedBuffer.open(owner.file())
    seen = reader.view
    del owner, reader
    assert bytes(seen[:3]) == b"abc"


class Counting(SharedPool):
    """Notes what is made and dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.dropped = 0, list[int]()

    def make(self, nbytes: int) -> SharedBuffer:
        self.made += 1
        return super().make(nbytes)

    def drop(self, buffer: SharedBuffer) -> None:
        self.dropped.append(buffer.inode)


def test_buffers_are_made_before_they_are_needed_and_used_again() -> None:
    pool = Counting()
    pool.fill(8)
    assert pool.made == 2
    one, two, three = (pool.take(8) for _ in range(3))
    assert pool.made == 3
    for buffer in (one, two, three):
        pool.put(buffer)
    assert pool.dropped == [three.inode], "two are kept"
    assert pool.take(8) in (one, two)


def test_a_buffer_of_another_length_is_dropped() -> None:
    pool = Counting()
    old = SharedBuffer.create(8)
    pool.put(old)
    assert pool.take(16).nbytes == 16 and pool.dropped == [old.inode]
