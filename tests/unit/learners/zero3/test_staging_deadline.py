"""The deadline of a version's gathers, against collectives that are only noted: what counts against it, and what it covers."""

import time
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch

from learners.zero3 import lora
from learners.zero3.staging import Deadline, Destination, gather_packed

STAGE_S = 0.5


class Work:
    """A collective. A rank that does not join makes it fail after the whole wait."""

    def __init__(self, joins: bool) -> None:
        self.joins = joins
        self.limits: list[float] = []

    def wait(self, limit: timedelta) -> None:
        self.limits.append(limit.total_seconds())
        if not self.joins:
            time.sleep(limit.total_seconds())
            raise RuntimeError("Timed out waiting")


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> Work:
    """This process is rank 1; rank 0 makes a buffer for longer than `STAGE_S`, and then gathers."""
    work = Work(joins=True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: time.sleep(2 * STAGE_S))
    monkeypatch.setattr(torch.distributed, "gather", lambda *_, **__: work)
    return work


def test_the_time_that_rank_0_needs_for_memory_does_not_count(second_of_two: Work) -> None:
    shards = {"w": torch.zeros(4)}
    gather_packed([("w", (8,))], shards, "float32", Destination(deadline_s=STAGE_S))
    (limit_s,) = second_of_two.limits
    assert limit_s > 0.2 * STAGE_S, "counted from before the memory it were over"


def test_rank_0_takes_its_memory_before_the_deadline_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(Deadline, "begin", lambda self: begun.append("deadline"))

    def allocate(nbytes: int) -> Any:
        begun.append("memory")
        return np.empty(nbytes, np.uint8)

    gather_packed([("w", (4,))], {"w": torch.ones(4)}, "float32", Destination(allocate))
    assert begun == ["memory", "deadline"]


def test_a_rank_that_does_not_join_the_gather_of_an_adapter_is_noticed_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work(joins=False)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", lambda *_, async_op: work)
    deadline = Deadline(0.05)
    deadline.begin()
    with pytest.raises(TimeoutError, match="stage_s"):
        lora._gather_whole(torch.zeros(2), torch.Size([4]), deadline)


def test_an_error_before_the_deadline_is_that_error() -> None:
    class Broken(Work):
        def wait(self, limit: timedelta) -> None:
            raise RuntimeError("connection reset")

    deadline = Deadline(60.0)
    deadline.begin()
    with pytest.raises(RuntimeError, match="reset"):
        deadline.wait(Broken(joins=False))
