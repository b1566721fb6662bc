"""Handing staged versions over in the background: which reach the sink, and when a buffer is written again."""

import threading
import time
from typing import Any

import numpy as np
import pytest

from learners.weights.buffers import StagingPool, array_of
from learners.weights.handover import Handover
from protocol.errors import NotHandedOver
from protocol.packed import RunningChecksum
from protocol.shared import SharedBuffer
from protocol.types import Holding, WeightManifest


def checksum(*pieces: Any) -> RunningChecksum:
    running = RunningChecksum()
    for piece in pieces:
        running.add(np.asarray(piece, np.uint8))
    return running


def manifest(version: int) -> WeightManifest:
    return WeightManifest("attacker", version, (), 0, "")


def offer(handover: Handover, version: int, buffer: SharedBuffer | None = None) -> None:
    buffer = buffer or make_buffer(version)
    handover.offer(manifest(version), buffer, checksum(array_of(buffer)))


def make_buffer(value: int) -> SharedBuffer:
    buffer = SharedBuffer.create(8)
    array_of(buffer)[:] = value
    return buffer


class SlowSink:
    """Takes each version over only when it is let through. Then it holds that one and those of `keeps`."""

    def __init__(self, keeps: dict[int, set[int]] | None = None) -> None:
        self.taken: list[int] = []
        self.keeps = keeps or {}
        self.checksums: list[str] = []
        self.holder, self.held = "one", frozenset[int]()
        self.entered, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.fails = 0  # so many of the next publishes: their answers are lost
        self.again = threading.Event()

    def publish(self, manifest: WeightManifest, packed: Any) -> Holding:
        self.entered.release()
        assert self.gate.acquire(timeout=10)
        if self.fails:
            self.fails -= 1
            raise NotHandedOver("no answer")
        self.taken.append(manifest.version)
        self.checksums.append(manifest.checksum)
        self.held = frozenset({manifest.version, *self.keeps.get(manifest.version, ())})
        self.again.set()
        return self.holding(manifest.player)

    def holding(self, player: str) -> Holding:
        return Holding(self.holder, self.held)

    def restart(self) -> None:
        """A new process, which holds nothing."""
        self.holder, self.held, self.keeps = "two", frozenset(), {}
        self.again.clear()


def settle(handover: Handover) -> None:
    handover.drain(10)
    handover.close()


class Pool(StagingPool):
    """Notes what is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped: list[SharedBuffer] = []

    def drop(self, buffer: SharedBuffer) -> None:
        self.dropped.append(buffer)


def test_the_newest_waiting_version_wins_and_the_displaced_are_counted() -> None:
    sink = SlowSink()
    handover = Handover(sink, StagingPool())
    offer(handover, 1)
    assert sink.entered.acquire(timeout=10)
    for version in (2, 3, 4):
        offer(handover, version)  # none of these waits for the sink
    sink.gate.release(2)
    settle(handover)
    assert sink.taken == [1, 4]
    assert (handover.published, handover.superseded) == (2, 2)
    assert sink.checksums == [checksum(np.full(8, version)).hexdigest() for version in (1, 4)]


def test_a_buffer_is_written_again_when_its_version_was_displaced_or_is_not_held_and_not_before() -> None:
    sink, pool = SlowSink(keeps={2: {1}}), StagingPool()
    handover = Handover(sink, pool)
    one, displaced, two, three = make_buffer(1), make_buffer(7), make_buffer(2), make_buffer(3)
    offer(handover, 1, one)
    assert sink.entered.acquire(timeout=10)
    offer(handover, 7, displaced)
    offer(handover, 2, two)
    assert pool.take(8) is displaced
    sink.gate.release(2)
    handover.drain(10)
    assert pool.take(8) not in (one, two), "version 1 is still read"
    offer(handover, 3, three)
    sink.gate.release()
    settle(handover)
    assert {pool.take(8), pool.take(8)} == {one, two}
    assert pool.take(8) is not three


def test_a_lost_answer_gives_no_buffer_back_that_is_held() -> None:
    """The sink took the version and its answer was lost: the version is left again, and its buffer stays as it is."""
    sink, pool = SlowSink(), StagingPool()
    sink.fails = 1
    handover = Handover(sink, pool, look_s=0.01)
    one = make_buffer(1)
    offer(handover, 1, one)
    sink.gate.release(2)
    handover.drain(10)
    assert sink.taken == [1] and (handover.published, handover.superseded) == (1, 0)
    assert pool.take(8) is not one
    handover.close()


def test_a_version_that_cannot_be_handed_over_is_superseded_and_the_learner_goes_on() -> None:
    sink, pool = SlowSink(), Pool()
    handover = Handover(sink, pool, look_s=30.0)
    one, two, three = make_buffer(1), make_buffer(2), make_buffer(3)
    offer(handover, 1, one)
    sink.gate.release()
    handover.drain(10)
    sink.fails = 1
    offer(handover, 2, two)
    sink.gate.release()
    while sink.fails:  # it is tried, in vain
        time.sleep(0.001)
    offer(handover, 3, three)
    assert pool.take(8) not in (one, two), "nobody has said that version 2 did not arrive"
    sink.gate.release()
    settle(handover)
    assert sink.taken == [1, 3] and (handover.published, handover.superseded) == (2, 1)
    assert {pool.take(8), pool.take(8)} == {one, two}, "now it is said"


def test_a_holder_that_was_restarted_gets_the_newest_again_and_older_buffers_are_not_written() -> None:
    sink, pool = SlowSink(keeps={2: {1}}), Pool()
    handover = Handover(sink, pool, look_s=0.01)
    one, two = make_buffer(1), make_buffer(2)
    offer(handover, 1, one)
    sink.gate.release(2)
    handover.drain(10)
    offer(handover, 2, two)
    handover.drain(10)
    sink.restart()
    sink.gate.release()
    assert sink.again.wait(10)
    handover.drain(10)
    assert sink.taken == [1, 2, 2]
    deadline = time.monotonic() + 10
    while not pool.dropped and time.monotonic() < deadline:
        time.sleep(0.001)
    assert pool.dropped == [one], "a worker of the holder that is gone may read it"
    assert pool.take(8) not in (one, two)
    handover.close()


def test_a_buffer_of_another_length_is_not_used() -> None:
    pool = StagingPool()
    pool.put(make_buffer(1))
    assert pool.take(16).nbytes == 16


def test_a_sink_that_hangs_is_noticed_at_the_deadline() -> None:
    sink = SlowSink()
    handover = Handover(sink, StagingPool())
    offer(handover, 1)
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        handover.drain(0.05)
    sink.gate.release()


def test_a_failing_sink_fails_the_learner() -> None:
    class Broken(SlowSink):
        def publish(self, manifest: WeightManifest, packed: Any) -> Holding:
            raise TypeError("a fault of ours")

    handover = Handover(Broken(), StagingPool())
    offer(handover, 1)
    with pytest.raises(RuntimeError) as failed:
        handover.drain(10)
    assert isinstance(failed.value.__cause__, TypeError)
