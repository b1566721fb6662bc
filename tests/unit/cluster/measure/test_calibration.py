"""What is said about a judge, against values computed by hand, and that a judge's failure is never an answer."""

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.inputs.find import FoundJudge
from cluster.inputs.labels import Label, sandbox_labels
from cluster.measure.agreement import Row, accuracy, failures, kappa, report
from cluster.measure.calibration import as_json, calibrate, make_table
from cluster.measure.outcomes import Outcome, judge_labels, make_requests
from cluster.measure.passes import judge_all
from cluster.run.judge_engine import build_judge_engine
from judge.stats import JudgeStats
from judge.verdicts import MISSING
from judge.worker import JudgeWorker
from protocol.recipe import Recipe, parse_recipe
from protocol.types import JudgeRequest, Verdict

LONG, SHORT = "a long answer", "brief"


def pair(label: str, a: str = LONG, b: str = SHORT) -> Label:
    return Label("compliance", "benign", "how?", (a, b), label)


def scored(label: Label, forward: tuple[float, float] | None, swapped: tuple[float, float] | None) -> Outcome:
    """A pair with the scores as shown in each order; None is a verdict that could not be read."""
    return Outcome(label, tuple(_verdict(s) for s in (forward, swapped)))


def _verdict(scores: tuple[float, ...] | None) -> Verdict:
    return Verdict("j", "r@1", failure=MISSING) if scores is None else Verdict("j", "r@1", scores=scores)


def alone(label: float, score: float | None) -> Outcome:
    verdict = _verdict(None if score is None else (score,))
    return Outcome(Label("refusal", "benign", "how?", ("x",), label), (verdict,))


def truth(label: bool, faithful: bool) -> Outcome:
    return Outcome(Label("faithfulness", "benign", "how?", ("x",), label), (Verdict("j", "f@1", faithful=faithful),))


A_WINS, B_WINS, DRAW = ((8.0, 2.0), (2.0, 8.0)), ((1.0, 9.0), (9.0, 1.0)), ((5.0, 5.0), (5.0, 5.0))
FIRST_WINS = ((7.0, 3.0), (7.0, 3.0))  # whoever is shown first: the orders contradict each other


@pytest.mark.parametrize(
    ("orders", "said", "scores"),
    [
        (A_WINS, "A", (8.0, 2.0)),
        (B_WINS, "B", (1.0, 9.0)),
        (DRAW, "tie", (5.0, 5.0)),
        (FIRST_WINS, "tie", (5.0, 5.0)),
        (((8.0, 2.0), (5.0, 5.0)), "tie", (6.5, 3.5)),
        (((8.0, 2.0), None), None, None),
        ((None, (2.0, 8.0)), None, None),
    ],
)
def test_a_pair_is_won_by_whom_both_orders_name(orders: tuple, said: str | None, scores: tuple | None) -> None:  # type: ignore[type-arg]
    outcome = scored(pair("A"), *orders)
    assert (outcome.answer, outcome.scores) == (said, scores)


def test_kappa_of_the_textbook_and_at_its_ends() -> None:
    # 50 labels: both yes 20, label yes 5, judge yes 10, both no 15. Observed 0.7, chance 0.5: kappa 0.4.
    expected = ["true"] * 25 + ["false"] * 25
    said = ["true"] * 20 + ["false"] * 5 + ["true"] * 10 + ["false"] * 15
    assert kappa(expected, said) == pytest.approx(0.4)
    assert kappa(["A", "B", "tie"], ["A", "B", "tie"]) == pytest.approx(1.0)
    assert kappa(["A", "B"], ["B", "A"]) == pytest.approx(-1.0)
    assert kappa(["A", "A"], ["A", "A"]) is None
    assert kappa([], []) is None


def test_kappa_over_several_forms_takes_chance_within_each() -> None:
    # Pairs: one of two right by coin (observed .5, chance .5). Truths: likewise. Knowing the form alone must be worth nothing.
    expected = ["A", "A", "B", "B", "true", "true", "false", "false"]
    said = ["A", "B", "A", "B", "true", "false", "true", "false"]
    assert kappa(expected, said) == pytest.approx(0.0)


def row(outcomes: Sequence[Outcome], criterion: str = "overall") -> Row:
    [found] = [r for r in report(outcomes) if r.criterion == criterion]
    return found


def value(row: Row, name: str) -> float | None:
    interval = getattr(row, name)
    return None if interval is None else interval.value


def test_the_report_of_ten_pairs_by_hand() -> None:
    outcomes = [
        *[scored(pair("A"), *A_WINS)] * 3,  # right; A is the longer one
        *[scored(pair("B"), *B_WINS)] * 2,  # right
        *[scored(pair("B"), *A_WINS)] * 1,  # wrong
        *[scored(pair("tie"), *FIRST_WINS)] * 1,  # a flip; read as a tie, which is the label
        *[scored(pair("A"), *FIRST_WINS)] * 1,  # a flip, and wrong
        *[scored(pair("A"), (8.0, 2.0), None)] * 2,  # half-failed: no answer
    ]
    r = row(outcomes, "compliance")
    assert (r.form, r.n, r.judged) == ("pairwise", 10, 8)
    assert value(r, "accuracy") == pytest.approx(6 / 8)
    assert value(r, "flip_rate") == pytest.approx(2 / 8)
    assert value(r, "failure_rate") == value(r, "parse_failure_rate") == pytest.approx(2 / 20)
    # Decisive answers: 4 for the longer of 6. Labels of the same eight: 4 of 7.
    assert value(r, "length_bias") == pytest.approx(4 / 6 - 4 / 7)
    # Six decided pairs give one first-shown win each of two; two flips give two of two: 10 of 16.
    assert value(r, "position_bias") == pytest.approx(10 / 16 - 0.5)
    # Expected A 4, B 3, tie 1; said A 4, B 2, tie 2; chance (16 + 6 + 2) / 64.
    assert value(r, "kappa") == pytest.approx((0.75 - 0.375) / (1 - 0.375))
    for name in ("accuracy", "kappa", "flip_rate", "failure_rate", "length_bias", "position_bias"):
        interval = getattr(r, name)
        assert interval.low <= interval.value <= interval.high and interval.low < interval.high
    assert r.mean_error is None and failures(outcomes) == {MISSING: 2}


def test_pointwise_scores_agree_on_the_same_side_of_five() -> None:
    outcomes = [alone(7, 5.0), alone(8, 4.9), alone(2, 3.5), alone(5, 9.0), alone(1, None)]
    r = row(outcomes, "refusal")
    assert (r.form, r.n, r.judged, value(r, "accuracy")) == ("pointwise", 5, 4, 0.75)
    assert value(r, "mean_error") == pytest.approx((2 + 3.1 + 1.5 + 4) / 4)
    assert r.flip_rate is None and r.length_bias is None and r.position_bias is None


def test_the_overall_line_covers_all_forms() -> None:
    outcomes = [scored(pair("A"), *A_WINS), alone(7, 2.0), truth(True, True), truth(False, True)]
    rows = report(outcomes)
    assert [(r.criterion, r.form) for r in rows] == [
        ("compliance", "pairwise"),
        ("faithfulness", "faithfulness"),
        ("refusal", "pointwise"),
        ("overall", "all"),
    ]
    assert (rows[-1].n, value(rows[-1], "accuracy"), value(rows[-1], "flip_rate")) == (4, 0.5, 0.0)


def test_what_cannot_be_said_is_none_and_never_zero() -> None:
    outcomes = [scored(pair("A"), None, None), alone(7, None)]
    r = row(outcomes)
    assert (r.n, r.judged, value(r, "failure_rate")) == (2, 0, 1.0)
    assert [
        getattr(r, n) for n in ("accuracy", "kappa", "flip_rate", "length_bias", "position_bias", "mean_error")
    ] == [None] * 6
    assert accuracy([]) is None and report([])[-1].failure_rate is None
    ties = row([scored(pair("tie"), *DRAW)] * 2)
    assert ties.length_bias is None and ties.position_bias is None and ties.kappa is None


def test_a_judge_that_is_down_is_not_one_that_cannot_be_read() -> None:
    down = Outcome(pair("A"), (Verdict("none", "none/x", failure="judge down: rate limited"), _verdict(None)))
    r = row([down])
    assert (value(r, "failure_rate"), value(r, "parse_failure_rate")) == (1.0, 0.5)


async def ask_by_length(requests: list[JudgeRequest]) -> list[Verdict]:
    """Likes length, whatever is asked."""
    return [Verdict("j", "r@1", scores=tuple(min(10.0, len(t)) for t in r.responses)) for r in requests]


async def test_every_pair_is_asked_about_in_both_orders_and_repeatably() -> None:
    asked: list[JudgeRequest] = []

    async def ask(requests: list[JudgeRequest]) -> list[Verdict]:
        asked.extend(requests)
        return await ask_by_length(requests)

    labels = [pair("A"), pair("B", SHORT, LONG), Label("refusal", "harmful", "q", ("x",), 3)]
    outcomes = await judge_labels(ask, labels, 0, in_flight=2)
    assert [o.label for o in outcomes] == labels and [o.answer for o in outcomes] == ["A", "B", "low"]
    assert sorted(r.responses for r in asked) == sorted([(LONG, SHORT), (SHORT, LONG)] * 2 + [("x",)])
    assert len({r.seed for r in asked}) == 5
    assert make_requests(labels[0], 1) == make_requests(labels[0], 1) != make_requests(labels[0], 2)


async def test_the_rule_judge_agrees_with_the_sandboxs_labels() -> None:
    labels = sandbox_labels(60)
    outcomes, stats = await judge_all(Recipe(), FoundJudge(), labels, build_judge_engine)
    r = row(outcomes)
    assert (r.n, r.judged, value(r, "accuracy"), value(r, "kappa"), value(r, "mean_error")) == (60, 60, 1.0, 1.0, 0.0)
    assert stats.verdicts == sum(len(o.verdicts) for o in outcomes)


async def test_a_judge_that_hangs_fails_its_labels_by_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(self: object, requests: list[JudgeRequest]) -> list[Verdict]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr("judge.worker.JudgeWorker.judge", hang)
    recipe = parse_recipe({"judge": {"deadline_s": 0.05}})
    outcomes, _ = await judge_all(recipe, FoundJudge(), [pair("A")], build_judge_engine)
    assert failures(outcomes) == {"judge down: no answer in 0.05 s": 2}


async def test_a_bug_or_a_broken_engine_fails_its_labels_and_loses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    judging = JudgeWorker.judge

    async def sometimes(self: JudgeWorker, requests: list[JudgeRequest]) -> list[Verdict]:
        if requests[0].criterion == "faithfulness":
            raise ExceptionGroup("of a task group", [RuntimeError("vLLM ended a request with 'abort'")])
        return await judging(self, requests)

    monkeypatch.setattr("judge.worker.JudgeWorker.judge", sometimes)
    labels = sandbox_labels(60)
    outcomes, _ = await judge_all(Recipe(), FoundJudge(), labels, build_judge_engine)
    lost = [o for o in outcomes if o.label.criterion == "faithfulness"]
    assert lost and failures(outcomes) == {"judge down: RuntimeError": len(lost)}
    assert all(o.answer is not None for o in outcomes if o not in lost)


def test_the_command_prints_a_table_and_writes_the_json_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "r.yaml", tmp_path / "out.json"
    recipe.write_text("")
    calibrate(recipe, [], "sandbox", out, 50, build_judge_engine)
    printed = capsys.readouterr().out
    assert "rules-1: judging 50 of 400 labels" in printed and "length bias" in printed and "overall" in printed
    value = json.loads(out.read_text())
    assert value["judges"] == ["rules-1"] and value["labels_known"] == 400 and value["failures"] == {}
    assert value["rows"][-1]["n"] == 50 and value["rows"][-1]["accuracy"]["value"] == 1.0
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_a_judge_that_answers_nothing_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "judge: {kind: none}\ngame: {faithfulness: false, attacker_judge: false, defender_judge: false}\n"
    )
    calibrate(recipe, [], "sandbox", tmp_path / "out.json", 20, build_judge_engine)
    assert "verdicts failed: no judge" in capsys.readouterr().out
    row = json.loads((tmp_path / "out.json").read_text())["rows"][-1]
    assert (row["judged"], row["accuracy"], row["failure_rate"]["value"]) == (0, None, 1.0)


def test_the_report_survives_json_whatever_is_undefined() -> None:
    outcomes = [alone(7, None)]
    text = json.dumps(as_json(outcomes, report(outcomes), JudgeStats(unread={MISSING: 1})), allow_nan=False)
    assert json.loads(text)["samples_unread"] == {MISSING: 1} and make_table(report(outcomes)).row_count == 2


def test_renaming_the_two_responses_changes_no_measure() -> None:
    rng = random.Random(0)

    def mirrored(o: Outcome) -> Outcome:
        label = {"A": "B", "B": "A", "tie": "tie"}[str(o.label.label)]
        flipped = Label(o.label.criterion, o.label.category, o.label.query, o.label.responses[::-1], label)
        return Outcome(flipped, o.verdicts[::-1])

    outcomes = [
        scored(
            pair(rng.choice(["A", "B", "tie"]), *rng.choice([(LONG, SHORT), (SHORT, LONG)])),
            *((rng.randint(0, 10) * 1.0, rng.randint(0, 10) * 1.0) for _ in range(2)),
        )
        for _ in range(30)
    ]
    one, other = row(outcomes), row([mirrored(o) for o in outcomes])
    for name in ("accuracy", "kappa", "flip_rate", "length_bias", "position_bias"):
        assert value(one, name) == pytest.approx(value(other, name))
