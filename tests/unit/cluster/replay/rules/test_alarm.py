"""The judge alarm: when it pauses a run, how it asks again, and that a run paused by it can always go on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.plan.replay import plan_replay
from cluster.replay.rules.alarm import Alarm
from protocol.recipe import AlarmConfig, parse_recipe

CONFIG = AlarmConfig(failure_rate=0.25, window=40, pause_s=15.0, probe_games=2)


def play(a: Alarm, games: range, failed: int, now_s: float = 0.0, verdicts: int = 10) -> None:
    a.note_dealt(games)
    for game in games:
        a.note_finished(game, verdicts, failed, now_s)


def raised(now_s: float = 100.0) -> Alarm:
    a = Alarm(CONFIG)
    play(a, range(2), failed=5, now_s=now_s)
    assert a.is_up
    return a


def test_it_rises_above_the_rate_and_not_before_half_a_window() -> None:
    early = Alarm(CONFIG)
    play(early, range(1), failed=10)
    assert not early.is_up and early.limit(0.0) is None and early.why(0.0) == ""
    play(early, range(1, 2), failed=0)
    assert early.is_up and early.limit(0.0) == 0
    a = Alarm(CONFIG)
    play(a, range(3), failed=0)
    play(a, range(3, 4), failed=10)
    assert not a.is_up and a.failure_rate == 0.25  # at the rate is not above it
    play(a, range(4, 5), failed=0)
    assert not a.is_up
    play(a, range(5, 6), failed=1)
    assert a.is_up and a.failure_rate == 0.275  # of the window: the first games have left it


def test_it_explains_itself() -> None:
    a = raised(now_s=100.0)
    said = "paused: judge failed 10 of the last 20 verdicts, alarm at 25 %; "
    assert a.why(103.0) == said + "asking again with 2 games in 12 s"
    assert a.why(115.0) == said + "asking again with 2 games now"
    a.note_dealt([7, 8])
    assert a.why(116.0) == said + "2 games ask it again now"


def test_a_probe_that_comes_back_well_ends_it_with_an_empty_window() -> None:
    a = raised(now_s=100.0)
    assert (a.limit(114.0), a.wait_s(114.0), a.limit(115.0)) == (0, 1.0, 2)
    a.note_dealt([7, 8])
    assert a.limit(116.0) == 0
    assert a.note_finished(7, 10, 5, 120.0) is None and a.is_up  # half of it failed, but the probe is not all back
    assert a.note_finished(8, 10, 0, 121.0) == {"e": "calm", "s": 21.0}
    assert not a.is_up and a.limit(121.0) is None and a.failure_rate is None
    assert (a.raised, a.paused_s, a.up_s(130.0)) == (1, 21.0, 0.0)


@pytest.mark.parametrize("verdicts", [10, 0], ids=["failing", "silent"])
def test_a_probe_that_does_not_keeps_the_run_paused(verdicts: int) -> None:
    a = raised(now_s=100.0)
    a.note_dealt([7, 8])
    for game in (7, 8):
        a.note_finished(game, verdicts, verdicts, 120.0)
    assert a.is_up and a.limit(134.0) == 0 and a.limit(135.0) == 2
    assert a.up_s(135.0) == 35.0 and a.raised == 1


def test_a_probe_that_is_lost_is_followed_by_another() -> None:
    a = raised(now_s=100.0)
    a.note_dealt([7, 8])
    a.note_over([7], 120.0)
    assert a.limit(200.0) == 0
    a.note_over([8], 121.0)
    assert a.is_up and a.limit(136.0) == 2


def test_games_from_before_the_alarm_do_not_count_after_it() -> None:
    a = Alarm(CONFIG)
    a.note_dealt(range(10))
    for game in (0, 1):
        a.note_finished(game, 10, 10, 0.0)
    assert a.is_up
    a.note_finished(2, 10, 10, 1.0)  # in flight when it rose, back during the pause
    a.note_dealt([20, 21])
    a.note_finished(20, 10, 0, 16.0)
    a.note_finished(21, 10, 0, 16.0)
    assert not a.is_up
    for game in range(3, 10):  # and after it: the hung judge's last failures
        a.note_finished(game, 10, 10, 17.0)
    assert not a.is_up and a.failure_rate is None
    play(a, range(30, 32), failed=10)
    assert a.is_up


def test_a_run_whose_judge_is_none_is_never_paused() -> None:
    game = {"faithfulness": False, "attacker_judge": False, "defender_judge": False}
    a = Alarm(plan_replay(parse_recipe({"judge": {"kind": "none", "alarm": {"window": 2}}, "game": game})).alarm)
    play(a, range(50), failed=10)
    assert not a.is_up


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["deal", "end", "lose", "wait"]), st.integers(0, 9)), max_size=150))
def test_whatever_happens_a_run_can_go_on_once_the_judge_answers(moves: list[tuple[str, int]]) -> None:
    a, open_games, next_id, now = Alarm(CONFIG), list[int](), 0, 0.0

    def deal(games: int) -> None:
        nonlocal next_id
        allowed = a.limit(now)
        games = games if allowed is None else min(games, allowed)
        if games:
            a.note_dealt(range(next_id, next_id + games))
            open_games.extend(range(next_id, next_id + games))
            next_id += games

    for move, n in moves:
        if move == "deal":
            deal(n)
        elif move == "wait":
            now += n
        elif open_games:
            game = open_games.pop(n % len(open_games))
            if move == "end":
                a.note_finished(game, 10, n, now)
            else:
                a.note_over([game], now)
    for _ in range(
        3
    ):  # what is open comes back; then the probe, if one is needed; perhaps one that had failures in it before
        for game in open_games:
            a.note_finished(game, 10, 0, now)
        open_games.clear()
        now += CONFIG.pause_s
        if a.is_up:
            deal(5)
    assert not a.is_up and a.limit(now) is None
