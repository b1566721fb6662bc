"""Page-locked staging buffers against a runtime that only counts: what was locked is unlocked when it is dropped."""

from typing import Any

import pytest
import torch

from learners.weights.buffers import StagingPool
from protocol.shared import SharedBuffer


class Runtime:
    """As CUDA's: what is registered, by address."""

    def __init__(self, allows: bool = True) -> None:
        self.allows, self.locked = allows, dict[int, int]()

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        if not self.allows:
            return 801  # cudaErrorNotSupported
        self.locked[address] = nbytes
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        return 0 if self.locked.pop(address, None) is not None else 713  # cudaErrorHostMemoryNotRegistered


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    found = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: found)
    return found


def test_locked_pages_are_unlocked_when_a_buffer_is_not_used_again(runtime: Runtime) -> None:
    pool = StagingPool(lock_pages=True)
    taken = [pool.take(4096) for _ in range(3)]
    assert sorted(runtime.locked.values()) == [4096] * 3
    for buffer in taken:
        pool.put(buffer)
    assert len(runtime.locked) == 2, "the third is one too many"
    pool.take(8192)  # another length: the two that are kept are of no use
    assert list(runtime.locked.values()) == [8192]


def test_what_could_not_be_locked_is_not_unlocked(runtime: Runtime, caplog: Any) -> None:
    runtime.allows = False
    pool = StagingPool(lock_pages=True)
    buffers: list[SharedBuffer] = [pool.take(4096) for _ in range(3)]
    for buffer in buffers:
        pool.put(buffer)
    assert runtime.locked == {}


def test_a_cpu_learner_locks_nothing(runtime: Runtime) -> None:
    StagingPool().take(4096)
    assert runtime.locked == {}
