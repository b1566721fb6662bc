"""A sink that is slow, dead or broken never holds anything up; what it does not take is counted, and said once."""

import threading
import time
from pathlib import Path

import pytest

from cluster.observe.sinks import sinks as all_sinks
from cluster.observe.sinks.outlet import Outlet, SinkCounts
from cluster.observe.sinks.sink import Record, RunFacts
from cluster.observe.sinks.sinks import Sinks
from cluster.observe.view import view_of
from tests.unit.cluster.observe.run_files import STATS, plan_at, report
from tests.unit.meters import RecordingMeter

RUN = RunFacts("a", Path("/nowhere"), False, {})


class FakeSink:
    """Does what it is told to do at each call; remembers what it took."""

    def __init__(self, breaks: str = "", gate: threading.Event | None = None) -> None:
        self.breaks, self.gate = breaks, gate
        self.took: list[str] = []

    def start(self, run: RunFacts) -> None:
        self._do("start", run.name)

    def write(self, record: Record) -> None:
        if self.gate is not None:
            self.gate.wait(10)
        self._do("write", str(record.step))

    def end(self, status: str) -> None:
        self._do("end", status)

    def abandon(self) -> None:
        self.took.append("abandoned")

    def _do(self, call: str, what: str) -> None:
        if call == self.breaks:
            raise ConnectionError(f"no route\nand more about {what}")
        self.took.append(what)


def record(step: int) -> Record:
    return Record("run", step, 0.0, {"run/x": 1.0})


def finish(outlet: Outlet, wait_s: float = 10.0) -> SinkCounts:
    outlet.end("finished")
    return outlet.close(time.monotonic() + wait_s)


def test_a_sink_gets_everything_in_order() -> None:
    sink = FakeSink()
    outlet = Outlet("fake", sink, RUN)
    for step in range(5):
        outlet.offer(record(step))
    assert finish(outlet) == SinkCounts(5, 0) and outlet.take_complaint() == ""
    assert sink.took == ["a", "0", "1", "2", "3", "4", "finished"]


def test_a_slow_sink_drops_what_does_not_fit_and_takes_no_time_of_the_run() -> None:
    gate = threading.Event()
    sink = FakeSink(gate=gate)
    outlet = Outlet("fake", sink, RUN, limit=3)
    outlet.offer(record(0))
    while outlet._waiting.qsize():  # until it is in the sink's hands
        time.sleep(0.001)
    began = time.monotonic()
    for step in range(1, 1001):
        outlet.offer(record(step))
    assert time.monotonic() - began < 0.5
    assert outlet.counts().dropped == 997
    assert outlet.take_complaint() == "fake is too slow: 3 records wait for it, newer ones are dropped"
    assert outlet.take_complaint() == "", "it is said once"
    gate.set()
    assert finish(outlet).written == 4 and sink.took == ["a", "0", "1", "2", "3", "finished"]


@pytest.mark.parametrize(
    ("breaks", "took", "says"),
    [
        ("start", [], "could not be opened"),
        ("write", ["a", "finished"], "took no record"),
    ],
)
def test_a_broken_sink_says_so_once_and_every_record_counts_as_dropped(breaks: str, took: list[str], says: str) -> None:
    sink = FakeSink(breaks)
    outlet = Outlet("fake", sink, RUN)
    for step in range(3):
        outlet.offer(record(step))
    counts = finish(outlet)
    assert (counts.written, counts.dropped, sink.took) == (0, 3, took)
    assert (
        outlet.take_complaint().startswith(f"fake {says} (ConnectionError: no route)") and not outlet.take_complaint()
    )


def test_a_sink_that_hangs_gets_its_deadline_and_no_more() -> None:
    gate = threading.Event()
    sink = FakeSink(gate=gate)
    outlet = Outlet("fake", sink, RUN)
    for step in range(3):
        outlet.offer(record(step))
    began = time.monotonic()
    counts = finish(outlet, 0.2)
    assert time.monotonic() - began < 2.0
    assert counts == SinkCounts(0, 3, "was not done in time at the end of the run")
    assert sink.took == ["a", "abandoned"] and outlet._thread.daemon, "it cannot keep the process alive"
    gate.set()
    outlet._thread.join(10)


def test_one_dead_sink_leaves_the_others_alone_and_the_drops_are_metered(
    tmp_path: Path, metered: RecordingMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_sinks, "FLUSH_S", 5.0)
    good, dead, said = FakeSink(), FakeSink("start"), list[str]()
    plan = plan_at(tmp_path / "a")
    sinks = Sinks(plan, said.append, made={"good": good, "dead": dead})
    view = view_of(plan, STATS)
    for step in (1, 2):
        sinks.show(view, [report("attacker", step)], list)
    sinks.add_steps([report("attacker", 3)])
    counts = sinks.close("interrupted")
    records = counts["good"].written
    assert records >= 3 and good.took[-1] == "interrupted"
    assert counts["good"].dropped == 0 and (counts["dead"].written, counts["dead"].dropped) == (0, records)
    assert metered.counters == {("sink_dropped_total", "good"): 0, ("sink_dropped_total", "dead"): records}
    assert len(said) == 1 and said[0].startswith(
        "sink dead could not be opened (ConnectionError: no route); the run goes on"
    )


def test_without_a_sink_nothing_is_computed(tmp_path: Path) -> None:
    def samples() -> list[object]:
        raise AssertionError("not without a sink")

    plan = plan_at(tmp_path / "a")
    sinks = Sinks(plan, print)
    sinks.show(view_of(plan, STATS), [report("attacker", 1)], samples)  # type: ignore[arg-type]
    assert sinks.close("finished") == {} and len(sinks) == 0
