"""When a worker is suspect, started or replaced: checkups in, actions out."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cluster.supervise.health import Action, Checkup, Replace, Start, WorkerHealth
from protocol.exchange import Vitals
from protocol.recipe import HealthConfig

CONFIG = HealthConfig(every_s=2.0, stuck_s=60.0, silent_s=20.0, misses=8, replace_s=10.0)
START_S = 300.0
IDLE = Checkup(Vitals(ready=True, steps=7))
BUSY = Checkup(Vitals(ready=True, running=3, steps=7))
NO_ENGINE = Checkup(Vitals())
STARTING = Checkup(Vitals(starting=True))
GONE = Checkup(gone=True)
SILENT = Checkup()
MISSING = Checkup(Vitals(ready=True, running=3, steps=None), missed=8)


class Bench:
    """A worker that is looked at every two seconds."""

    def __init__(self) -> None:
        self.health = WorkerHealth(CONFIG, START_S, 0.0)
        self.now_s = 0.0
        self.found: list[tuple[float, Action]] = []

    def look(self, *checkups: Checkup) -> None:
        for checkup in checkups:
            self.now_s += CONFIG.every_s
            action = self.health.note(checkup, self.now_s)
            if action is not None:
                self.found.append((self.now_s, action))

    def look_for(self, seconds: float, checkup: Checkup) -> None:
        self.look(*[checkup] * int(seconds / CONFIG.every_s))


def moving(seconds: float) -> list[Checkup]:
    return [Checkup(replace(BUSY.vitals, steps=k)) for k in range(int(seconds / CONFIG.every_s))]  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("checkups", "state"),
    [
        ([IDLE] * 100, "ready"),
        (moving(200.0), "busy"),
        ([Checkup(Vitals(True, running=3, steps=7, paused=True))] * 100, "busy"),
        ([Checkup(Vitals(True, running=3, steps=None))] * 100, "busy"),
        ([replace(MISSING, missed=7)] * 100, "busy"),
        ([SILENT] * 9, "ready"),
        ([STARTING] * 149, "down"),
        ([GONE] * 149, "down"),
    ],
    ids=["idle", "moves", "paused", "no engine", "few misses", "short silence", "starting", "gone"],
)
def test_nothing_is_done_to_a_worker_that_is_well_or_on_its_way(checkups: Sequence[Checkup], state: str) -> None:
    b = Bench()
    b.look(*checkups)
    assert b.found == [] and b.health.state == state


@pytest.mark.parametrize(
    ("checkup", "reason", "when_s"),
    [
        (BUSY, "stuck", 2.0 + CONFIG.stuck_s + CONFIG.replace_s),  # from the first look on
        (SILENT, "silent", CONFIG.silent_s + CONFIG.replace_s),
        (MISSING, "deadlines", 2.0 + CONFIG.replace_s),
        (STARTING, "start_deadline", 2.0 + START_S),
        (GONE, "start_deadline", 2.0 + START_S),
    ],
)
def test_a_worker_that_stays_ill_is_replaced(checkup: Checkup, reason: str, when_s: float) -> None:
    b = Bench()
    b.look_for(when_s, checkup)
    assert b.found == [(when_s, Replace(reason))] and b.health.state == "down"


@pytest.mark.parametrize("checkup", [BUSY, SILENT, MISSING])
def test_a_suspect_that_recovers_is_left_alone(checkup: Checkup) -> None:
    b = Bench()
    while b.health.state != "suspect":
        b.look(checkup)
    b.look_for(CONFIG.replace_s - 2.0, checkup)
    b.look(*moving(4.0))
    assert b.health.state == "busy"
    b.look(*moving(100.0))
    assert b.found == []


def test_an_engine_is_stuck_from_its_last_step_on_and_while_it_has_requests() -> None:
    b = Bench()
    b.look_for(1000.0, IDLE)
    b.look_for(CONFIG.stuck_s - 2.0, BUSY)
    assert b.health.state == "busy"
    b.look(BUSY, BUSY)
    assert b.health.state == "suspect"


def test_a_worker_without_an_engine_is_started_at_once_and_not_again_while_it_starts() -> None:
    b = Bench()
    b.look(IDLE, NO_ENGINE, *[STARTING] * 20, IDLE)
    assert b.found == [(4.0, Start())] and b.health.state == "ready"
    b.look(NO_ENGINE)
    assert b.found[1:] == [(b.now_s, Start())]


def test_a_worker_that_died_is_started_when_its_process_is_back() -> None:
    b = Bench()
    b.look(IDLE, GONE, GONE, NO_ENGINE)
    assert b.found == [(8.0, Start())]


def test_a_worker_that_builds_its_engine_may_be_silent() -> None:
    """The build blocks its event loop, for minutes."""
    b = Bench()
    b.look(NO_ENGINE)
    b.look_for(START_S - 10.0, SILENT)
    assert b.found == [(2.0, Start())] and b.health.state == "down"
    b.look(IDLE)
    assert b.health.state == "ready"


def test_a_start_that_hangs_has_a_deadline() -> None:
    b = Bench()
    b.look(NO_ENGINE)
    b.look_for(START_S + 2.0, SILENT)
    assert b.found[1:] == [(2.0 + START_S, Replace("start_deadline"))]


def test_a_fresh_worker_has_the_start_deadline_anew() -> None:
    b = Bench()
    b.look_for(2.0 + START_S, STARTING)
    b.look_for(START_S - 2.0, STARTING)
    assert len(b.found) == 1
    b.look_for(4.0, STARTING)
    assert len(b.found) == 2


@pytest.mark.parametrize("between", [[GONE], [NO_ENGINE], []])
def test_a_fresh_worker_is_not_at_fault_of_its_predecessors_misses(between: list[Checkup]) -> None:
    b = Bench()
    b.look_for(2.0 + CONFIG.replace_s, MISSING)
    assert b.found == [(b.now_s, Replace("deadlines"))]
    b.look(*(replace(checkup, missed=8) for checkup in between))
    found = len(b.found)
    b.look_for(100.0, MISSING)  # nobody has asked it yet
    assert len(b.found) == found
    b.look_for(20.0, replace(MISSING, missed=15))
    assert len(b.found) == found
    b.look_for(2.0 + CONFIG.replace_s, replace(MISSING, missed=16))
    assert b.found[-1][1] == Replace("deadlines")


def test_misses_count_anew_from_an_answer_on() -> None:
    b = Bench()
    b.look(GONE, replace(MISSING, missed=8), replace(MISSING, missed=0))
    b.look_for(2.0 + CONFIG.replace_s, replace(MISSING, missed=8))
    assert [action for _, action in b.found] == [Replace("deadlines")]
