"""The sending end against a publisher and an engine that hang, fail and come back late. No Ray, no GPU."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cluster.publish.native import NativeSink
from protocol.recipe import DeadlinesConfig, PushConfig
from protocol.shared import SharedBuffer
from protocol.types import Holding, WeightManifest

PUSH = PushConfig(deadline_s=1.0, deadlines=DeadlinesConfig(send_s=0.2))


class Engine:
    """vLLM's trainer engine. What it does next is in `faults`: to hang (an event), or to raise."""

    made: list["Engine"]
    faults: dict[str, list[Any]]

    def __init__(self, transport: str, processes: int, client: Any, source: Any) -> None:
        self.client, self.source, self.closed = client, source, False
        self.sent: list[int] = []
        Engine.made.append(self)
        self._fault("make")
        client.init_weight_transfer_engine({"rank_offset": 1})

    def _fault(self, where: str) -> None:
        if Engine.faults[where]:
            fault = Engine.faults[where].pop(0)
            if isinstance(fault, Exception):
                raise fault
            fault.wait(10)

    def send_weights(self) -> None:
        self._fault("send")
        self.client.start_weight_update()
        version = self.source._packed.view[0]
        self.client.update_weights({"first": version})
        self.sent.append(version)

    def shutdown(self) -> None:
        self.closed = True


class Sink(NativeSink):
    """With a publisher in this process."""

    def __init__(self) -> None:
        super().__init__(None, "nccl", PUSH, 2, Engine)
        self.calls: list[tuple[Any, ...]] = []

    def ask(self, method: str, *args: Any, wait_s: float = 0.0) -> Any:
        self.calls.append((method, *args))
        return {"publish": Holding("one", frozenset()), "list_receivers": ["a", "b"], "send": True}.get(method)

    def leave(self, version: int) -> None:
        packed = SharedBuffer.create(8)
        np.frombuffer(packed.view, np.uint8)[:] = version
        self.publish(WeightManifest("attacker", version, (), 8, "sum"), packed)

    def called(self, method: str) -> list[tuple[Any, ...]]:
        return [args for name, *args in self.calls if name == method]  # type: ignore[misc]


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    Engine.made, Engine.faults = [], {"make": [], "send": []}
    monkeypatch.setattr(ray, "get_runtime_context", lambda: type("Context", (), {"get_node_id": lambda _: "here"})())


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_group_is_used_again_for_the_next_version() -> None:
    sink = Sink()
    sink.leave(1)
    sink.leave(2)
    (engine,) = Engine.made
    assert engine.sent == [1, 2] and sink.called("give_up_send") == []
    assert [args[2] for args in sink.called("send")] == [{"first": 1}, {"first": 2}]


def test_a_join_that_hangs_is_given_up_long_before_the_push_is_and_its_thread_changes_nothing_later() -> None:
    sink, gate = Sink(), threading.Event()
    Engine.faults["make"] = [gate]
    began = time.monotonic()
    sink.leave(1)
    assert time.monotonic() - began < PUSH.deadline_s, "workers wait for join_s, then take the bytes another way"
    assert sink.called("give_up_send") == [["attacker", 1]]
    sink.leave(2)
    late, good = Engine.made
    assert good.sent == [2]
    gate.set()
    wait_until(lambda: late.closed)
    sink.leave(3)
    assert late.sent == [] and good.sent == [2, 3] and len(Engine.made) == 2, "the engine is the second one still"


def test_a_send_that_comes_late_sends_no_older_version_over_a_newer_one() -> None:
    sink, gate = Sink(), threading.Event()
    Engine.faults["send"] = [gate]
    sink.leave(1)
    assert sink.called("give_up_send") == [["attacker", 1]]
    sink.leave(2)
    gate.set()
    late, good = Engine.made
    wait_until(lambda: late.closed)
    time.sleep(0.05)
    assert late.sent == [] and good.sent == [2]
    assert [args[1] for args in sink.called("send")] == [2], "the publisher never heard of the late one"


def test_what_fails_is_given_up_at_once_and_the_next_version_makes_a_new_group() -> None:
    sink = Sink()
    Engine.faults["send"] = [ConnectionError("no route")]
    sink.leave(1)
    assert sink.called("give_up_send") == [["attacker", 1]] and Engine.made[0].closed
    sink.leave(2)
    assert Engine.made[1].sent == [2]
