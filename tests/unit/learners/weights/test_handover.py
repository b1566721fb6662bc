"""Handing staged versions over in the background: which reach the sink, and when a buffer is written again."""

import threading
from typing import Any

import numpy as np
import pytest

from learners.weights.buffers import StagingPool, array_of
from learners.weights.handover import Handover
from protocol.packed import RunningChecksum
from protocol.shared import SharedBuffer
from protocol.types import WeightManifest


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
    """Takes each version over only when it is let through."""

    def __init__(self, gives_back: dict[int, list[int]] | None = None) -> None:
        self.taken: list[int] = []
        self.gives_back = gives_back or {}
        self.checksums: list[str] = []
        self.entered, self.gate = threading.Semaphore(0), threading.Semaphore(0)

    def publish(self, manifest: WeightManifest, packed: Any) -> list[int]:
        self.entered.release()
        assert self.gate.acquire(timeout=10)
        self.taken.append(manifest.version)
        self.checksums.append(manifest.checksum)
        return self.gives_back.get(manifest.version, [])


def test_the_newest_waiting_version_wins_and_the_displaced_are_counted() -> None:
    sink = SlowSink()
    handover = Handover(sink, StagingPool())
    offer(handover, 1)
    assert sink.entered.acquire(timeout=10)
    for version in (2, 3, 4):
        offer(handover, version)  # none of these waits for the sink
    sink.gate.release(2)
    handover.close(10)
    assert sink.taken == [1, 4]
    assert (handover.published, handover.superseded) == (2, 2)
    assert sink.checksums == [checksum(np.full(8, version)).hexdigest() for version in (1, 4)]


def test_a_buffer_is_written_again_when_its_version_was_displaced_or_given_back_and_not_before() -> None:
    sink, pool = SlowSink(gives_back={2: [1, 99]}), StagingPool()  # 99: a version of the group's life before a restart
    handover = Handover(sink, pool)
    one, displaced, two = make_buffer(1), make_buffer(7), make_buffer(2)
    offer(handover, 1, one)
    assert sink.entered.acquire(timeout=10)
    offer(handover, 7, displaced)
    offer(handover, 2, two)
    assert pool.take(8) is displaced
    assert pool.take(8) not in (one, two)
    sink.gate.release(2)
    handover.close(10)
    assert pool.take(8) is one
    assert pool.take(8) is not two


def test_a_buffer_of_another_length_is_not_used() -> None:
    pool = StagingPool()
    pool.put(make_buffer(1))
    assert pool.take(16).nbytes == 16


def test_a_sink_that_hangs_is_noticed_at_the_deadline() -> None:
    sink = SlowSink()
    handover = Handover(sink, StagingPool())
    offer(handover, 1)
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        handover.close(0.05)
    sink.gate.release()


def test_a_failing_sink_fails_the_learner() -> None:
    class Broken:
        def publish(self, manifest: WeightManifest, packed: Any) -> list[int]:
            raise ConnectionError("replay is gone")

    handover = Handover(Broken(), StagingPool())
    offer(handover, 1)
    with pytest.raises(RuntimeError) as failed:
        handover.close(10)
    assert isinstance(failed.value.__cause__, ConnectionError)
