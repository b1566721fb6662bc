"""From verdicts to rewards and pairs, against hand computations and a brute-force oracle."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.preferences import compare, comparisons, pick_pair, rewards

score = st.floats(0, 10)
group = st.lists(st.one_of(st.none(), st.floats(-1, 10)), max_size=6)


def test_every_pair_once_or_in_both_orders_and_a_lone_item_with_itself() -> None:
    assert comparisons(3, both_orders=False) == [(0, 1), (0, 2), (1, 2)]
    assert comparisons(3, both_orders=True) == [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    assert comparisons(1, both_orders=True) == [(0, 0)]
    assert comparisons(0, both_orders=True) == []


def test_rewards_by_hand() -> None:
    # Item 0: (8 + 6)/2 = 7 against 1, 9 against 2 -> 8. Item 1: (2 + 4)/2 = 3 and 5 -> 4. Item 2: 1 and 5 -> 3.
    preferences = [compare(0, 1, (8, 2), (6, 4)), compare(0, 2, (9, 1), None), compare(1, 2, (5, 5), None)]
    assert rewards(3, preferences) == [8, 4, 3]
    assert rewards(2, []) == [None, None]
    assert rewards(1, [compare(0, 0, (4, 6), None)]) == [5]


@given(st.tuples(score, score), st.tuples(score, score))
def test_disagreeing_orders_are_a_tie_and_a_win_needs_both(
    forward: tuple[float, float], swapped: tuple[float, float]
) -> None:
    p = compare(0, 1, forward, swapped)
    wins = [None if a == b else (0 if a > b else 1) for a, b in (forward, swapped)]
    assert p.winner == (wins[0] if wins[0] == wins[1] else None)
    assert p.agreed == (set(wins) != {0, 1})


@given(st.tuples(score, score), st.tuples(score, score))
def test_relabelling_the_items_never_changes_who_wins(
    forward: tuple[float, float], swapped: tuple[float, float]
) -> None:
    mirrored = compare(0, 1, (swapped[1], swapped[0]), (forward[1], forward[0]))
    winner = compare(0, 1, forward, swapped).winner
    assert mirrored.winner == (None if winner is None else 1 - winner)


@given(group)
def test_the_pair_is_a_brute_force_argmax_and_argmin(values: list[float | None]) -> None:
    known = [k for k, v in enumerate(values) if v is not None]
    pair = pick_pair(values, [])
    if len({values[k] for k in known}) < 2:
        assert pair is None
        return
    assert pair is not None
    assert values[pair[0]] == max(v for v in values if v is not None)
    assert values[pair[1]] == min(v for v in values if v is not None)
    assert all(values[k] is not None for k in pair)


def test_a_pair_the_judge_did_not_stand_by_is_dropped() -> None:
    assert pick_pair([6.0, 4.0], [compare(0, 1, (9, 1), (3, 7))]) is None
    assert pick_pair([8.0, 2.0], [compare(0, 1, (9, 1), (7, 3))]) == (0, 1)
    assert pick_pair([-1.0, 2.0], []) == (1, 0)
