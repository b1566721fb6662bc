"""The judge's probe: drift since the first time, across a resume, and failures that are no drift."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.inputs.labels import Label
from cluster.measure.probe import Answer, Prober, ProbeSet, compare, first_answers
from cluster.rundir import RunDir
from protocol.types import JudgeRequest, Verdict

LABELS = [
    Label("compliance", "benign", "how?", ("good", "bad"), "A"),
    Label("refusal", "harmful", "how?", ("good",), 8),
    Label("faithfulness", "benign", "how?", ("good",), True),
]


class TableJudge:
    """Scores by a table that a test changes; a missing text cannot be read. Notes every request."""

    def __init__(self, **table: float) -> None:
        self.table = table
        self.asked: list[JudgeRequest] = []

    async def judge(self, requests: Sequence[JudgeRequest], fresh: bool = False) -> list[Verdict]:
        assert fresh, "a probe answered from memory measures nothing"
        self.asked += requests
        return [self._one(r) for r in requests]

    def _one(self, r: JudgeRequest) -> Verdict:
        if any(text not in self.table for text in r.responses):
            return Verdict("t", "r@1", failure="no score")
        if r.criterion == "faithfulness":
            return Verdict("t", "r@1", faithful=self.table[r.responses[0]] >= 5)
        return Verdict("t", "r@1", scores=tuple(self.table[text] for text in r.responses))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_drift_is_the_mean_change_of_a_labels_scores_and_failures_are_not_compared() -> None:
    first = [Answer("A", (8.0, 2.0)), Answer("high", (6.0,)), Answer("true", None), Answer(None, None)]
    now = [Answer("B", (3.0, 5.0)), Answer("high", (7.0,)), Answer("false", None), Answer("high", (9.0,))]
    assert compare(first, now) == ((4.0 + 1.0) / 2, 2 / 3)
    assert compare(first[3:], now[3:]) == (None, None)
    assert first_answers([first, now]) == [*first[:3], now[3]]


async def test_a_judge_that_moves_shows_and_one_that_stands_still_does_not(tmp_path: Path) -> None:
    judge = TableJudge(good=8.0, bad=2.0)
    probe = ProbeSet(LABELS, judge, RunDir(tmp_path), seed=0)
    assert probe.last_step is None
    one = await probe.judge_once(0)
    assert (one.n, one.failed, one.drift, one.changed, one.accuracy) == (3, 0, 0.0, 0.0, 1.0)
    two = await probe.judge_once(50)
    assert (two.drift, two.changed) == (0.0, 0.0)
    judge.table = {"good": 4.0, "bad": 6.0}
    three = await probe.judge_once(100)
    assert (three.drift, three.changed, three.accuracy) == (4.0, 1.0, 0.0)
    assert probe.last_step == 100
    per_round = len(judge.asked) // 3
    seeds = [[r.seed for r in judge.asked[k * per_round : (k + 1) * per_round]] for k in range(3)]
    assert seeds[0] == seeds[1] == seeds[2] and len(set(seeds[0])) == 4


async def test_a_resumed_run_compares_with_the_first_judgement_of_all(tmp_path: Path) -> None:
    await ProbeSet(LABELS, TableJudge(good=8.0, bad=2.0), RunDir(tmp_path), 0).judge_once(0)
    again = ProbeSet(LABELS, TableJudge(good=7.0, bad=2.0), RunDir(tmp_path), 0)
    assert again.last_step == 0
    result = await again.judge_once(50)
    assert result.drift == pytest.approx((0.5 + 1.0) / 2) and result.changed == 0.0
    records = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
    assert (
        [r["step"] for r in records] == [0, 50] and records[1]["judges"] == ["t"] and records[1]["rubrics"] == ["r@1"]
    )
    assert names(tmp_path) == ["probe.jsonl"]


async def test_an_outage_is_counted_and_is_no_drift(tmp_path: Path) -> None:
    judge = TableJudge()
    probe = ProbeSet(LABELS, judge, RunDir(tmp_path), 0)
    down = await probe.judge_once(0)
    assert (down.failed, down.drift, down.changed, down.accuracy) == (3, None, None, None)
    judge.table = {"good": 8.0, "bad": 2.0}
    assert (await probe.judge_once(50)).drift == 0.0
    judge.table = {"good": 9.0, "bad": 2.0}
    assert (await probe.judge_once(100)).drift == pytest.approx(0.75)


async def test_an_edited_set_begins_anew(tmp_path: Path) -> None:
    await ProbeSet(LABELS, TableJudge(good=8.0, bad=2.0), RunDir(tmp_path), 0).judge_once(0)
    other = ProbeSet(LABELS[:2], TableJudge(good=3.0, bad=2.0), RunDir(tmp_path), 0)
    assert other.last_step is None
    assert (await other.judge_once(50)).drift == 0.0
    assert len((tmp_path / "probe.jsonl").read_text().splitlines()) == 2


async def test_the_prober_judges_at_the_start_when_a_multiple_of_its_steps_is_passed_and_at_the_end(
    tmp_path: Path,
) -> None:
    prober = Prober(ProbeSet(LABELS, TableJudge(good=8, bad=2), RunDir(tmp_path), seed=1), every=10)
    for step in (0, 0, 3, 9, 11, 12, 19, 25):
        prober.judge_if_due(step)
        for _ in range(20):
            await asyncio.sleep(0)
    prober.judge_if_due(26)
    await prober.finish(26, limit_s=5)
    await prober.finish(26, limit_s=5)
    assert [json.loads(line)["step"] for line in (tmp_path / "probe.jsonl").read_text().splitlines()] == [0, 11, 25, 26]
    assert prober.latest is not None and prober.latest.step == 26


async def test_one_judgement_at_a_time_and_a_stuck_one_is_given_up(tmp_path: Path) -> None:
    class Stuck(TableJudge):
        async def judge(self, requests: Sequence[JudgeRequest], fresh: bool = False) -> list[Verdict]:
            await asyncio.Event().wait()
            return []

    prober = Prober(ProbeSet(LABELS, Stuck(), RunDir(tmp_path), seed=1), every=10)
    prober.judge_if_due(0)
    await asyncio.sleep(0)
    prober.judge_if_due(30)
    await prober.finish(30, limit_s=0.05)
    prober.close()
    assert prober.latest is None and not (tmp_path / "probe.jsonl").exists()


async def test_a_probe_that_broke_says_so_once(tmp_path: Path) -> None:
    class Broken(TableJudge):
        async def judge(self, requests: Sequence[JudgeRequest], fresh: bool = False) -> list[Verdict]:
            raise OSError("disk")

    prober = Prober(ProbeSet(LABELS, Broken(), RunDir(tmp_path), seed=1), every=10)
    prober.judge_if_due(0)
    for _ in range(20):
        await asyncio.sleep(0)
    with pytest.raises(ExceptionGroup):
        prober.judge_if_due(1)
    prober.close()  # the run's teardown must not meet it again
