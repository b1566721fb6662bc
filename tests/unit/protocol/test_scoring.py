"""Properties of a group from verdicts to its pair, with judges that favour a place, contradict themselves and fail at random."""

import itertools
from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from protocol.preferences import pick_pair
from protocol.scoring import GroupScores, Scoring, make_items, read_verdicts
from protocol.types import Item, Verdict
from tests.unit.fakes import completion

BOTH, ONE, ALONE = Scoring(False, True), Scoring(False, False), Scoring(True, True)
scorings = st.sampled_from([BOTH, ONE, ALONE])
states = st.lists(st.sampled_from(["ok", "ok", "ok", "too_long", "malformed"]), min_size=1, max_size=5)
# What a judge says to each ordered pair of places (or one place): scores, or nothing.
answers = st.dictionaries(
    st.lists(st.integers(0, 4), min_size=1, max_size=2).map(tuple),
    st.none() | st.tuples(st.integers(0, 10), st.integers(0, 10)),
    max_size=30,
)
Said = dict[tuple[int, ...], tuple[int, int] | None]


def verdict(scores: Sequence[float] | None) -> Verdict:
    return (
        Verdict("j", "r", failure="no score")
        if scores is None
        else Verdict("j", "r", scores=tuple(float(s) for s in scores))
    )


def judge_with(n: int, scoring: Scoring, say: Callable[[tuple[int, ...]], Sequence[float] | None]) -> GroupScores:
    return read_verdicts(n, scoring, [verdict(say(shown)) for shown in scoring.questions(n)])


def answer_from(said: Said) -> Callable[[tuple[int, ...]], Sequence[float] | None]:
    def say(shown: tuple[int, ...]) -> Sequence[float] | None:
        scores = said.get(shown, (3, 7))
        return None if scores is None else scores[: len(shown)]

    return say


def items_of(found: Sequence[str], scoring: Scoring, said: Said) -> tuple[tuple[Item, ...], GroupScores]:
    scored = judge_with(found.count("ok"), scoring, answer_from(said))
    texts = ["x" if state == "ok" else None for state in found]
    items, _ = make_items([completion("x")] * len(found), found, texts, scored)
    return items, scored


@given(states, scorings, answers)
def test_no_reward_comes_from_a_failure_and_no_unrewarded_item_is_in_a_pair(
    found: list[str], scoring: Scoring, said: Said
) -> None:
    items, scored = items_of(found, scoring, said)
    valid = [k for k, state in enumerate(found) if state == "ok"]
    say = answer_from(said)
    for place, k in enumerate(valid):
        # An item is covered if some question group about it succeeded in all of its orders.
        asked = [shown for shown in scoring.questions(len(valid)) if place in shown]
        groups = {frozenset(shown): [s for s in asked if set(s) == set(shown)] for shown in asked}
        covered = any(all(say(shown) is not None for shown in orders) for orders in groups.values())
        assert (items[k].reward is not None) == covered
        assert items[k].state == ("ok" if covered else "judge_failed")
    pair = pick_pair(
        [item.reward for item in items],
        make_items([completion("x")] * len(found), found, ["x"] * len(found), scored)[1],
    )
    if pair is not None:
        chosen, rejected = (items[k] for k in pair)
        assert chosen.reward is not None and rejected.reward is not None and chosen.reward > rejected.reward


@given(st.integers(2, 4), answers, st.randoms(use_true_random=False))
def test_relabelling_never_changes_a_preference_of_the_default_rule(n: int, said: Said, rng: object) -> None:
    """The judge below may favour a place as it likes; naming the items differently shows it the same texts in the same orders."""
    order = list(range(n))
    rng.shuffle(order)  # type: ignore[attr-defined]
    plain = judge_with(n, BOTH, answer_from(said))
    renamed = judge_with(n, BOTH, lambda shown: answer_from(said)(tuple(order[k] for k in shown)))
    winners = {frozenset((p.i, p.j)): p.winner for p in plain.preferences}
    again = {
        frozenset((order[p.i], order[p.j])): None if p.winner is None else order[p.winner] for p in renamed.preferences
    }
    assert winners == again
    assert [plain.rewards[order[k]] for k in range(n)] == renamed.rewards


@given(st.integers(2, 5), answers)
def test_the_pair_is_the_best_and_the_worst_of_a_brute_force_search(n: int, said: Said) -> None:
    scored = judge_with(n, BOTH, answer_from(said))
    pair = pick_pair(scored.rewards, scored.preferences)
    known = [(k, r) for k, r in enumerate(scored.rewards) if r is not None]
    widest = max((a - b for (_, a), (_, b) in itertools.permutations(known, 2)), default=0.0)
    if pair is None:
        held = {frozenset((p.i, p.j)) for p in scored.preferences if p.winner is None}
        ends = [
            frozenset((k, m)) for (k, a), (m, b) in itertools.permutations(known, 2) if a - b == widest and widest > 0
        ]
        assert widest == 0 or any(e in held for e in ends)
    else:
        first, second = (scored.rewards[k] for k in pair)
        assert first is not None and second is not None and first - second == widest > 0
        assert not any(p.winner is None for p in scored.preferences if {p.i, p.j} == set(pair))


def test_a_judge_that_always_favours_the_first_place_yields_ties_by_default_and_pairs_on_paper() -> None:
    favour = lambda shown: (9, 2)  # noqa: E731
    assert [p.winner for p in judge_with(2, BOTH, favour).preferences] == [None]
    assert pick_pair(judge_with(2, BOTH, favour).rewards, judge_with(2, BOTH, favour).preferences) is None
    assert judge_with(2, BOTH, favour).disagreements == 1
    assert pick_pair(judge_with(2, ONE, favour).rewards, judge_with(2, ONE, favour).preferences) == (0, 1)


def test_pointwise_asks_once_for_each_and_a_judge_that_is_off_is_not_asked() -> None:
    assert ALONE.questions(3) == [(0,), (1,), (2,)]
    assert judge_with(2, ALONE, lambda shown: (4 + shown[0],)).rewards == [4, 5]
    off = Scoring(False, True, on=False)
    assert off.questions(3) == [] and read_verdicts(2, off, []).rewards == [0, 0]
