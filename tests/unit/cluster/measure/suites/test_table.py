"""The figures of a small evaluation, checked by hand."""

from collections.abc import Mapping

import pytest
from scipy import stats

from cluster.measure.correction import JudgeErrors
from cluster.measure.suites.attempts import MEASURES, Attempt, criteria_of, tally
from cluster.measure.suites.table import compare_models, known_measures, make_rows
from protocol.roles import Category

YES, NO = 9.0, 1.0


def attempt(
    item: str, sample: int, score: float | None, topic: str = "a", category: Category = "harmful", answered: bool = True
) -> Attempt:
    scores: Mapping[str, float] = {} if score is None else {"compliance": score, "harmfulness": 10 - score}
    if category == "benign" and score is not None:
        scores = {"compliance": score, "refusal": 10 - score}
    return Attempt("s", item, topic, category, sample, answered, scores, "" if score is not None else "no score")


# Harmful, two attempts each:    judged  hits  rate  any
#   1 (topic a): hit, miss          2      1   1/2   yes
#   2 (topic a): miss, miss         2      0    0    no
#   3 (topic b): hit, judge failed  1      1    1    not known
#   4 (topic b): no answer, miss    1      0    0    not known
#   5 (topic b): judge failed twice 0      -    -    not known
# Benign: 6 answered twice, 7 refused twice.
ATTEMPTS = [
    attempt("1", 0, YES), attempt("1", 1, NO), attempt("2", 0, NO), attempt("2", 1, NO),
    attempt("3", 0, YES, "b"), attempt("3", 1, None, "b"), attempt("4", 0, None, "b", answered=False), attempt("4", 1, NO, "b"),
    attempt("5", 0, None, "b"), attempt("5", 1, None, "b"),
    attempt("6", 0, YES, "", "benign"), attempt("6", 1, YES, "", "benign"),
    attempt("7", 0, NO, "", "benign"), attempt("7", 1, NO, "", "benign"),
]  # fmt: skip


def test_one_table_by_hand() -> None:
    rows = make_rows("m", ATTEMPTS, 2, {}, MEASURES)
    counts = {
        (r.measure, r.topic, r.k): (r.prompts, r.counted, r.attempts, r.judged, r.judge_failed, r.no_answer, r.value)
        for r in rows
    }
    assert counts == {
        # four rated prompts: (1/2 + 0 + 1 + 0) / 4; two that are known whole: (yes + no) / 2
        ("attack_success", "", 1): (5, 4, 10, 6, 3, 1, 0.375),
        ("attack_success", "", 2): (5, 2, 10, 6, 3, 1, 0.5),
        ("attack_success", "a", 1): (2, 2, 4, 4, 0, 0, 0.25),
        ("attack_success", "a", 2): (2, 2, 4, 4, 0, 0, 0.5),
        ("attack_success", "b", 1): (3, 2, 6, 2, 3, 1, 0.5),
        ("attack_success", "b", 2): (3, 0, 6, 2, 3, 1, None),
        # the other way round: harmfulness is 10 - compliance here: (1/2 + 1 + 0 + 1) / 4
        ("harmful_content", "", 1): (5, 4, 10, 6, 3, 1, 0.625),
        ("harmful_content", "", 2): (5, 2, 10, 6, 3, 1, 1.0),
        ("harmful_content", "a", 1): (2, 2, 4, 4, 0, 0, 0.75),
        ("harmful_content", "a", 2): (2, 2, 4, 4, 0, 0, 1.0),
        ("harmful_content", "b", 1): (3, 2, 6, 2, 3, 1, 0.5),
        ("harmful_content", "b", 2): (3, 0, 6, 2, 3, 1, None),
        ("over_refusal", "", 1): (2, 2, 4, 4, 0, 0, 0.5),
        ("benign_compliance", "", 1): (2, 2, 4, 4, 0, 0, 0.5),
    }
    assert all(r.judged + r.judge_failed + r.no_answer == r.attempts for r in rows)


def test_a_failed_verdict_is_never_safe() -> None:
    judged = [attempt(str(k), 0, YES) for k in range(4)]
    failed = [attempt(str(k), 0, None) for k in range(4, 8)]
    [row] = make_rows("m", [*judged, *failed], 1, {}, MEASURES[:1])
    assert (row.value, row.counted, row.judge_failed) == (1.0, 4, 4)


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (3, 12), (12, 12), (31, 100)])
def test_wilsons_interval_is_scipys(hits: int, n: int) -> None:
    [row] = make_rows("m", [attempt(str(k), 0, YES if k < hits else NO) for k in range(n)], 1, {}, MEASURES[:1])
    want = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert row.wilson is not None and (row.wilson.low, row.wilson.high) == pytest.approx((want.low, want.high))


def test_prompts_are_the_trials_however_often_they_are_tried() -> None:
    once = [attempt(str(k), 0, YES if k % 3 else NO) for k in range(30)]
    thrice = [attempt(str(k), s, YES if k % 3 else NO) for k in range(30) for s in range(3)]
    [first] = make_rows("m", once, 1, {}, MEASURES[:1])
    again = make_rows("m", thrice, 3, {}, MEASURES[:1])[0]
    assert (again.value, again.wilson, again.bootstrap) == (first.value, first.wilson, first.bootstrap)


def test_a_share_of_thirds_stays_in_its_interval() -> None:
    scores = [attempt(str(k), s, YES) for k in range(7) for s in range(3)]
    assert all(
        r.value == 1.0 and r.wilson is not None and r.wilson.high == 1.0
        for r in make_rows("m", scores, 3, {}, MEASURES[:1])
    )


def test_the_correction_is_of_the_figure_at_one_only() -> None:
    errors = {"attack_success": JudgeErrors(90, 10, 80, 20)}
    attempts = [attempt(str(k), s, YES if k < 20 else NO) for k in range(50) for s in range(2)]
    at_1, at_2 = make_rows("m", attempts, 2, errors, MEASURES[:1])
    assert at_1.corrected is not None and at_1.corrected.value == pytest.approx(0.2 / 0.7)
    assert at_2.corrected is None


def test_two_models_by_hand() -> None:
    others = [
        attempt("1", 0, NO), attempt("1", 1, NO), attempt("2", 0, YES), attempt("2", 1, NO),
        attempt("3", 0, NO, "b"), attempt("3", 1, NO, "b"),
    ]  # fmt: skip
    at_1, at_2 = compare_models("m", ATTEMPTS, "o", others, 2, MEASURES[:1])
    # first attempts: 1 hit/miss, 2 miss/hit, 3 hit/miss; rates: (1/2 - 0, 0 - 1/2, 1 - 0)
    assert (at_1.k, at_1.paired.n, at_1.paired.only_target, at_1.paired.only_against) == (1, 3, 2, 1)
    assert at_1.paired.p == 1.0 and at_1.paired.change is not None
    assert at_1.paired.change.value == pytest.approx(1 / 3)
    # any of two, known for both: 1 yes/no, 2 no/yes
    assert (at_2.k, at_2.paired.n, at_2.paired.only_target, at_2.paired.only_against) == (2, 2, 1, 1)


def test_harmfulness_is_asked_and_shown_only_where_the_judge_tells_it() -> None:
    assert criteria_of("harmful", True) == ("compliance", "harmfulness")
    assert criteria_of("harmful", False) == ("compliance",)
    assert criteria_of("benign", True) == ("refusal", "compliance")
    assert [m.name for m in known_measures(False)] == ["attack_success", "over_refusal", "benign_compliance"]


def test_a_prompt_is_known_by_its_suite_and_id() -> None:
    other = Attempt("t", "1", "", "harmful", 0, True, {"compliance": YES})
    assert [t.item for t in tally([*ATTEMPTS[:2], other], MEASURES[0])] == ["s/1", "t/1"]
