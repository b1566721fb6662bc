"""What the router does when workers are silent, stuck, late or fail, and when asks end, case by case in virtual time."""

from collections.abc import Iterable

import pytest

from protocol.exchange import Answer, AskFault, NotReady, Vitals, WorkerFault
from protocol.router import GUILT_S, MAX_LOSSES, PROBE_S
from protocol.router_state import AVOID_MAX_S, AVOID_S, Exchange
from tests.unit.protocol.router_bench import HEDGE_S, READY, Bench, asked, given_up


def test_a_silent_worker_gets_nothing_and_the_first_answer_of_two_counts() -> None:
    b = Bench(2)
    b.add(0)
    assert asked(b.wait(HEDGE_S - 0.5)) == {}
    assert asked(b.wait(0.5)) == {1: (0,)}
    assert b.router.stats().hedged == 1 and b.router.stats().missed == (1, 0)
    assert b.reply(1, answers=[Answer(0, "second")]) == [Answer(0, "second")]
    assert given_up(b.decide()) == {}  # a hung process would not hear it
    assert b.reply(0, answers=[Answer(0, "first")]) == []  # it went on
    assert given_up(b.decide()) == {0: (0,)}


def test_the_other_worker_is_told_at_once_where_it_listens() -> None:
    b = Bench(2)
    b.add(0)
    for _ in range(4):  # ready, but no token
        b.wait(HEDGE_S / 4)
        b.reply(0, held=[0])
        b.decide()
    assert b.router.stats().hedged == 1
    b.reply(1, answers=[Answer(0, "x")])
    assert given_up(b.decide()) == {0: (0,)}
    assert b.router.idle


def test_never_at_a_fourth_worker() -> None:
    b = Bench(5)
    b.add(0)
    assert len(asked(b.wait(30 * HEDGE_S))) == 2  # all of them hang
    assert b.router.stats().hedged == 2


def test_not_at_a_third_worker_while_one_of_two_works() -> None:
    b = Bench(3)
    b.add(0)
    assert asked(b.wait(HEDGE_S)) == {1: (0,)}
    keep_replying(b, 1, [READY] * 20, held=[0])
    assert b.router.stats().hedged == 1


@pytest.mark.parametrize(("silent", "hedged"), [(1, 1), (2, 2), (3, 0), (4, 0)])
def test_silence_of_most_workers_is_nobodys_fault(silent: int, hedged: int) -> None:
    """An overloaded caller, or network, hears nobody in time: putting every ask to a second worker would make it worse."""
    b = Bench(4)
    for ask in range(4):
        b.add(ask)
    for ask in range(4):
        b.reply(ask, held=[ask], begun=[ask])
    b.decide()
    for _ in range(int(3 * HEDGE_S)):
        b.wait(1.0)
        for worker in range(silent, 4):
            b.reply(worker, held=[a for a in range(4) if worker in b.router._asks[a].at])
        b.decide()
    assert b.router.stats().hedged == hedged
    b.wait(3 * HEDGE_S)
    assert b.router.stats().hedged >= (silent < 4), "for ever is too long"


def test_a_full_worker_that_works_misses_nothing() -> None:
    b = Bench(2)
    b.add(0, questions=40)
    b.add(1)
    b.reply(1, answers=[Answer(1)])
    keep_replying(b, 0, [Vitals(True, steps=k) for k in range(8)], held=[0])
    assert (b.router.stats().hedged, b.router.stats().missed) == (1, (0, 0))


def test_an_ask_that_ends_worker_after_worker_is_condemned() -> None:
    """A prompt that breaks its engine would else break every engine, one after another."""
    b = Bench(6)
    b.add(0)
    for worker in range(MAX_LOSSES):
        assert 0 in b.router._asks, worker
        b.wait(GUILT_S) if worker % 2 else None
        if worker % 2:
            b.gone(worker)
        else:
            b.reply(worker, answers=[Answer(0, error=WorkerFault("the engine broke"))])
        b.decide()
    assert b.condemned == [0] and b.router.stats().condemned == 1
    assert b.router.idle


def test_an_ask_is_not_at_fault_of_workers_that_were_lost_before_it_came() -> None:
    b = Bench(8)
    b.add(0)
    for worker in range(7):
        b.gone(worker)
        b.decide()
    b.reply(7, answers=[Answer(0, "x")])
    assert b.condemned == []


def keep_replying(b: Bench, worker: int, vitals: Iterable[Vitals], **reply: Iterable[int]) -> list[Exchange]:
    """Each second the worker answers as the next says."""
    made = []
    for each in vitals:
        made += b.wait(1.0)
        b.reply(worker, each, **reply)
        made += b.decide()
    return made


@pytest.mark.parametrize(
    ("vitals", "moves"),
    [
        ([Vitals(True, steps=7)] * 6, True),
        ([Vitals(True, steps=k) for k in range(6)], False),
        ([Vitals(True, steps=7, paused=True)] * 6, False),
        ([Vitals(True, steps=None)] * 6, False),
    ],
    ids=["stuck", "moves", "paused for new weights", "no engine that could stand still"],
)
def test_an_engine_that_stands_still_is_hedged_though_it_has_begun(vitals: list[Vitals], moves: bool) -> None:
    b = Bench(2)
    b.add(0)
    calls = keep_replying(b, 0, vitals, held=[0], begun=[0])
    assert asked(c for c in calls if c.worker == 1) == ({1: (0,)} if moves else {})


def test_an_idle_engine_is_not_stuck() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals(True, steps=7), answers=[Answer(0)])
    b.wait(100.0)
    b.add(1)
    b.reply(1, answers=[Answer(1)])
    assert asked(b.add(2)) == {0: (2,)}


@pytest.mark.parametrize(("load", "moves"), [(2, True), (3, False)])
def test_a_late_ask_is_hedged_only_where_there_is_room(load: int, moves: bool) -> None:
    b = Bench(2)
    b.add(0, questions=4)
    b.add(1, questions=load)
    for _ in range(7):
        b.wait(1.0)
        b.reply(0, held=[0])
        b.reply(1, held=[0, 1], begun=[1])
        b.decide()
    assert b.router.stats().hedged == int(moves)


def test_an_ask_that_has_begun_is_not_late() -> None:
    b = Bench(2)
    b.add(0)
    keep_replying(b, 0, [READY] * 10, held=[0], begun=[0])
    assert b.router.stats().hedged == 0


def test_what_one_worker_fails_of_another_is_asked() -> None:
    b = Bench(3)
    b.add(0)
    assert b.reply(0, answers=[Answer(0, error=NotReady("x"))]) == []
    assert asked(b.decide()) == {1: (0,)}
    b.reply(1, answers=[Answer(0, error=WorkerFault("x"))])
    assert asked(b.decide()) == {2: (0,)}
    assert b.reply(2, answers=[Answer(0, "y")]) == [Answer(0, "y")]
    assert b.router.stats().moved == 2


def test_a_worker_that_fails_is_avoided_longer_each_time_and_forgiven_at_once() -> None:
    b = Bench(1)
    waits = []
    b.add(0)
    for ask in range(8):
        b.reply(0, answers=[Answer(ask, error=WorkerFault("x"))])
        b.router.give_up(ask)
        b.router.add(ask + 1, 1, b.now_s)
        since_s = b.now_s
        while not asked(b.decide()):
            b.now_s += 0.25
        waits.append(b.now_s - since_s)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (AVOID_S, AVOID_MAX_S) == (1.0, 60.0)
    b.reply(0, answers=[Answer(8, "good")])
    b.add(9)
    b.reply(0, answers=[Answer(9, error=WorkerFault("x"))])
    assert asked(b.wait(1.0)) == {0: (9,)}


def test_failures_that_come_together_are_one() -> None:
    b = Bench(1)
    for ask in range(5):
        b.router.add(ask, 1, 0.0)
    b.decide()
    b.reply(0, answers=[Answer(ask, error=WorkerFault("x")) for ask in range(5)])
    assert asked(b.wait(1.0)) == {0: (0, 1, 2, 3, 4)}


def test_the_asks_own_fault_is_delivered_and_not_held_against_the_worker() -> None:
    b, error = Bench(1), AskFault("too long")
    b.add(0)
    assert b.reply(0, answers=[Answer(0, error=error)])[0].error is error
    assert asked(b.add(1)) == {0: (1,)}


def test_any_other_error_is_delivered_and_the_worker_avoided() -> None:
    b, error = Bench(2), KeyError("bug")
    b.add(0)
    assert b.reply(0, answers=[Answer(0, error=error)])[0].error is error
    assert [asked(b.add(ask)) for ask in (1, 2)] == [{1: (1,)}, {1: (2,)}]
    b.wait(1.0)
    assert asked(b.add(3)) == {0: (3,)}


def test_an_ask_expires_whatever_happens() -> None:
    b = Bench(1)
    b.add(0, limit_s=3.0)
    keep_replying(b, 0, [READY] * 2, held=[0], begun=[0])
    assert b.expired == []
    assert given_up(keep_replying(b, 0, [READY], held=[0])) == {0: (0,)}
    assert b.expired == [0]
    assert b.router.stats().expired == 1


def test_an_ask_expires_when_its_worker_is_not_heard_of() -> None:
    b = Bench(1)
    b.add(0, absent_s=3.0)
    keep_replying(b, 0, [READY] * 10, held=[0])
    assert b.expired == []
    b.wait(3.0)
    assert b.expired == [0]
    b = Bench(1)
    b.add(0, absent_s=3.0)
    b.gone(0)
    b.wait(3.0)
    assert b.expired == [0]  # nobody took it either


def test_a_sign_of_the_worker_comes_before_an_ask_expires_for_want_of_it() -> None:
    (call,) = Bench(1).add(0, absent_s=1.0)
    assert call.hold_s == 0.5
    (call,) = Bench(1).add(0)
    assert call.hold_s == HEDGE_S / 2


def test_what_a_worker_misses_is_counted_until_it_answers_or_is_another() -> None:
    b = Bench(1)
    for ask in range(3):
        b.add(ask, limit_s=1.0)
    b.add(9)
    b.wait(1.0)
    assert b.router.stats().missed == (3,)
    b.reply(0, held=[9])
    assert b.router.stats().missed == (3,)
    b.gone(0)
    assert b.router.stats().missed == (0,)


def test_an_answer_ends_the_row_of_misses() -> None:
    b = Bench(1)
    b.add(0, limit_s=1.0)
    b.add(1)
    b.add(2)
    b.wait(1.0)
    b.reply(0, held=[1, 2])
    b.decide()
    b.reply(0, held=[2], answers=[Answer(1)])
    assert b.router.stats().missed == (0,)


def test_who_asks_nothing_more_tells_of_no_misses() -> None:
    b = Bench(1)
    b.add(0, limit_s=1.0)
    b.wait(1.0)
    assert b.router.stats().missed == (0,)  # else a caller that is done would have a sound worker replaced for ever


def test_what_ended_while_its_worker_was_taken_for_gone_is_given_up_there() -> None:
    b = Bench(2)
    b.add(0)
    b.gone(0)  # the network only: it goes on
    assert asked(b.decide()) == {1: (0,)}
    b.reply(1, answers=[Answer(0, "x")])
    b.add(1)
    b.wait(PROBE_S)
    b.reply(0, Vitals(True, running=1), held=[0])
    assert given_up(b.decide()) == {0: (0,)}


def test_given_up_asks_are_told_once_and_never_to_who_has_them_not() -> None:
    b = Bench(2)
    b.add(0)
    b.router.add(1, 1, 0.0)
    b.router.give_up(1)  # before it went anywhere
    b.router.give_up(0)
    calls = b.decide()
    assert given_up(calls) == {0: (0,)} and asked(calls) == {}
    b.router.give_up(0)
    assert b.decide() == [] and b.router.idle


def test_a_router_is_idle_without_asks_and_says_nothing() -> None:
    b = Bench(3)
    assert b.router.idle and b.wait(10.0) == []
    b.add(0)
    assert not b.router.idle


# -- whatever the workers do
