"""Reports: a step waits for none, none is lost with a publisher, none is taken twice."""

import threading
import time

import pytest

from cluster.publish.reports import Outbox, Report, ReportBox, Reporter, Taken
from cluster.publish.stats import StepReport, WarmReport
from protocol.errors import NotHandedOver


def report(step: int) -> StepReport:
    return StepReport("attacker", step, step, 0.0, {})


def steps(reports: list[StepReport]) -> list[int]:
    return [r.step for r in reports]


def test_a_batch_whose_answer_was_lost_is_taken_once() -> None:
    box, outbox = ReportBox("one"), Outbox()
    for step in (1, 2):
        outbox.add(report(step))
    box.take("me", outbox.list_due())  # its answer is lost
    outbox.add(report(3))
    new, taken = box.take("me", outbox.list_due())
    outbox.note(taken)
    assert [r.step for r in new if isinstance(r, StepReport)] == [3] and outbox.list_due() == []
    assert steps(box.drain()) == [1, 2, 3] and box.drain() == []


def test_what_the_driver_has_not_had_is_sent_again_to_a_restarted_publisher() -> None:
    box, outbox = ReportBox("one"), Outbox()
    for step in (1, 2):
        outbox.add(report(step))
        outbox.note(box.take("me", outbox.list_due())[1])
        if step == 1:
            box.drain()
    outbox.note(box.take("me", [])[1])
    assert outbox.all_taken and not outbox.empty, "2 lies in the publisher"
    box = ReportBox("two")
    outbox.note(box.take("me", [])[1])
    assert not outbox.all_taken
    outbox.note(box.take("me", outbox.list_due())[1])
    assert steps(box.drain()) == [2]
    outbox.note(box.take("me", [])[1])
    assert outbox.empty


def test_senders_number_their_own() -> None:
    box = ReportBox("one")
    box.take("one attempt", [(1, report(1)), (2, report(2))])
    box.take("the next", [(1, report(1))])
    assert steps(box.drain()) == [1, 2, 1]


def test_a_warm_start_is_no_step_of_the_run() -> None:
    box = ReportBox("one")
    new, _ = box.take("me", [(1, WarmReport("attacker", 1, 3, 4.0))])
    assert len(new) == 1 and box.drain() == []


class Publisher:
    """Takes reports when it is let through; away the first `away` times."""

    def __init__(self, away: int = 0) -> None:
        self.box, self.away, self.gate = ReportBox("one"), away, threading.Semaphore(0)

    def take(self, numbered: list[tuple[int, Report]]) -> Taken:
        assert self.gate.acquire(timeout=10)
        if self.away:
            self.away -= 1
            raise NotHandedOver("no answer")
        return self.box.take("me", numbered)[1]


def test_a_step_does_not_wait_for_the_publisher() -> None:
    publisher = Publisher()
    reporter = Reporter(publisher.take, look_s=0.01)
    began = time.monotonic()
    for step in range(1, 50):
        reporter.add(report(step))
    assert time.monotonic() - began < 5.0 and not reporter.flush(0.01)
    for _ in range(50):
        publisher.gate.release()
    assert reporter.flush(10.0)
    assert steps(publisher.box.drain()) == list(range(1, 50))


def test_reports_wait_for_a_publisher_that_is_away() -> None:
    publisher = Publisher(away=3)
    reporter = Reporter(publisher.take, look_s=0.01)
    reporter.add(report(1))
    for _ in range(20):
        publisher.gate.release()
    assert reporter.flush(10.0) and steps(publisher.box.drain()) == [1]


def test_a_fault_of_ours_fails_the_learner() -> None:
    def broken(numbered: list[tuple[int, Report]]) -> Taken:
        raise TypeError("a fault")

    reporter = Reporter(broken)
    reporter.add(report(1))
    with pytest.raises(RuntimeError) as failed:
        reporter.flush(10.0)
    assert isinstance(failed.value.__cause__, TypeError)
