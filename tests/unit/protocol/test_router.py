"""Whom the router asks, case by case in virtual time."""

from collections import Counter

import pytest

from protocol.exchange import Answer, Replies, Vitals
from protocol.router import HOME, PROBE_S, Router
from protocol.router_state import FRESH_S
from tests.unit.protocol.router_bench import HEDGE_S, READY, Bench, asked


def test_a_router_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        Router(0, HEDGE_S, 0.0)


def test_an_ask_goes_to_the_worker_with_the_fewest_questions() -> None:
    b = Bench(3)
    sizes = [4, 2, 1, 1, 1, 3]
    places = [next(iter(asked(b.add(ask, n)))) for ask, n in enumerate(sizes)]
    assert places == [0, 1, 2, 2, 1, 2]  # loads 4 | 2 | 1, then 4 | 2 | 2, then 4 | 3 | 2


def test_asks_of_one_tick_travel_together() -> None:
    b = Bench(2)
    for ask in range(6):
        b.router.add(ask, 1, 0.0)
    assert asked(b.decide()) == {0: (0, 2, 4), 1: (1, 3, 5)}


def test_idle_workers_take_turns() -> None:
    b = Bench(2)
    places = []
    for ask in range(4):
        (worker,) = asked(b.add(ask))
        places.append(worker)
        b.reply(worker, answers=[Answer(ask)])
    assert places == [0, 1, 0, 1]


def test_what_others_ask_of_a_worker_counts() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals(True, running=10), held=[0])  # nine of somebody else's
    assert [next(iter(asked(b.add(ask)))) for ask in (1, 2, 3)] == [1, 1, 1]


def test_what_a_worker_said_of_others_is_believed_for_a_while_only() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals(True, running=50), answers=[Answer(0, "a")])
    assert asked(b.add(1)) == {1: (1,)}
    b.now_s += FRESH_S
    b.reply(1, held=[1], begun=[1])  # else it would be silent, and its ask late
    assert asked(b.add(2)) == {0: (2,)}


def placed_at_once(b: Bench, asks: int) -> dict[int, int]:
    """One after another, by worker."""
    return Counter(next(iter(asked(b.add(ask)))) for ask in range(100, 100 + asks))


def test_a_callers_own_share_of_the_workers_comes_first_as_long_as_nothing_is_known_of_the_others() -> None:
    assert placed_at_once(Bench(4, share=(1, 2)), 24) == {1: 12, 3: 12}


@pytest.mark.parametrize(
    ("running", "placed"),
    [
        (0, {0: 3, 1: 10, 2: 1, 3: 10}),  # 2, which said nothing, is taken to be as loaded as 0
        (4, {1: 12, 3: 12}),
        (50, {1: 12, 3: 12}),
    ],
)
def test_the_others_are_asked_where_they_have_room(running: int, placed: dict[int, int]) -> None:
    b = Bench(4, share=(1, 2))
    b.add(0)
    b.wait(PROBE_S)
    sounded = [call.worker for call in b.out if not call.asks]
    assert sounded[:1] == [0], "one of the others is asked how loaded it is"
    b.reply(0, Vitals(True, running=running))
    b.reply(1, answers=[Answer(0)])
    assert placed_at_once(b, 2 * HOME + 8) == placed


def test_each_of_the_others_is_asked_in_its_turn_how_loaded_it_is_and_only_while_there_is_something_to_ask() -> None:
    b = Bench(4, share=(1, 2))
    b.add(0)
    for _ in range(4):
        b.wait(PROBE_S)
        for call in [call for call in b.out if not call.asks]:
            b.reply(call.worker)
    sounded = [call.worker for call in b.made if not call.asks]
    assert sounded == [0, 2, 0, 2, 0]
    assert all(call.hold_s == 0.0 for call in b.made if not call.asks)
    b.reply(1, answers=[Answer(0)])
    made = len(b.made)
    b.wait(5 * PROBE_S)
    assert len(b.made) == made


def test_what_is_placed_at_once_may_fill_a_worker_a_quarter_beyond_the_least() -> None:
    b = Bench(2)
    b.add(0, 20)
    b.add(1, 20)
    for ask in range(2, 8):
        b.router.add(ask, 1, 0.0)
    assert asked(b.decide()) == {0: (2, 3, 4, 5, 6, 7)}
    for ask in range(8, 12):
        b.router.add(ask, 1, 0.0)
    assert asked(b.decide()) == {1: (8, 9, 10, 11)}


def test_a_worker_that_is_not_ready_gets_nothing_until_it_is() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals(starting=True))
    assert asked(b.wait(PROBE_S)) == {1: (0,)}
    assert asked(b.add(1)) == {1: (1,)}
    b.reply(0, Vitals(starting=True))  # it was asked for a sign
    assert [call.asks for call in b.wait(PROBE_S) if call.worker == 0] == [()]
    b.reply(0, READY)
    assert asked(b.add(2)) == {0: (2,)}
    assert b.router.stats().moved == 1


def test_what_a_worker_answered_before_it_lost_its_engine_counts() -> None:
    b = Bench(1)
    b.add(0)
    b.router.add(1, 1, b.now_s)
    b.decide()
    assert b.reply(0, Vitals(), answers=[Answer(0, "text")]) == [Answer(0, "text")]
    assert b.router.stats().moved == 1  # ask 1 waits


def test_when_nobody_is_ready_asks_wait_and_everybody_is_looked_at_each_second() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals())
    b.wait(0.5)
    b.reply(1, Vitals())
    calls = []
    for _ in range(10):
        calls += b.wait(0.5)
        for call in list(b.out):
            b.reply(call.worker, Vitals())
    assert not asked(calls)
    assert 8 <= len(calls) <= 10


def test_an_ask_that_its_worker_does_not_hold_any_more_moves() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, held=[])
    assert asked(b.decide()) == {1: (0,)}  # whose turn it is


def test_an_ask_that_is_on_its_way_is_not_lost() -> None:
    b = Bench(1)
    b.add(0)
    b.add(1)  # in a second call
    b.reply(0, held=[0])  # to the first
    assert b.router.stats().moved == 0


def test_a_worker_that_is_gone_loses_its_asks_to_another() -> None:
    b = Bench(2)
    b.add(0)
    b.router.note_gone(0, 999, b.now_s)  # a call to an earlier process of it
    assert not asked(b.decide())
    b.router.note_gone(0, 1, b.now_s)
    assert asked(b.decide()) == {1: (0,)}


def test_a_worker_is_probed_though_asks_come_and_go_between_looks() -> None:
    b = Bench(2)
    b.add(0)
    b.gone(0)
    b.decide()
    asked_of: set[int] = set()
    for ask in range(1, 9):
        b.reply(1, answers=[Answer(ask - 1)])
        b.now_s += b.router.look_s
        b.decide()  # nothing is asked now
        asked_of |= {call.worker for call in b.add(ask)}
    assert asked_of == {0, 1}


def test_a_call_that_never_comes_back_keeps_nobody_from_a_worker_that_answers() -> None:
    b = Bench(1)
    b.add(0)
    b.add(1)
    lost = b.out.pop(0)
    b.now_s += 2 * HEDGE_S
    b.reply(0, answers=[Answer(1)])
    assert b.router.stats().moved == 1, "the other ask was lost with its call"
    assert asked(b.decide()) == {0: (0,)}
    assert b.router.note_reply(0, lost.number, Replies(READY, (Answer(0),)), b.now_s) == [Answer(0)], (
        "late is not too late"
    )
