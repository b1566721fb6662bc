"""The held-out measurement when players and judge misbehave: what is lost is counted, and nothing is kept that measures nothing."""

import asyncio
import json
from pathlib import Path

import pytest

from actors.errors import GenerationDeadline
from cluster.measure.evaluation import Evaluation, JudgeAbsent
from cluster.measure.heldout import measure, tally, wrap
from cluster.plan.heldout import plan_heldout
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.recipe import parse_recipe
from protocol.types import Ask, Completion, JudgeRequest, Seed, Verdict
from tests.unit.fakes import FakeGenerator, FakeJudge, completion

SEEDS = [Seed(f"h{k}", f"harm {k}", "harmful") for k in range(4)] + [
    Seed(f"b{k}", f"help {k}", "benign") for k in range(4)
]
RECIPE = parse_recipe({"game": {"in_flight": 3}})
PLAN = plan_heldout(RECIPE)
ATTACKER = FakeGenerator(lambda ask: ["<think>t</think><prompt>a</prompt>"])
DEFENDER = FakeGenerator(lambda ask: ["reply"])


class Silent(FakeJudge):
    """Fails every verdict."""

    def _one(self, r: JudgeRequest) -> Verdict:
        return Verdict("fake", "r@1", failure="judge down")


async def test_a_judge_that_is_down_is_no_attacker_that_fails() -> None:
    wrapped = await wrap(SEEDS, PLAN, ATTACKER, Silent({}), "base")
    m = await measure(wrapped, PLAN, DEFENDER, Silent({}), "start")
    assert (m.unjudged, m.unjudged_harmful, m.unwrapped, m.n) == (8, 4, 0, 0)


async def test_an_engine_that_is_late_costs_its_answers_and_not_the_run() -> None:
    def late(ask: Ask) -> list[str | Completion]:
        if "h1" in ask.id:
            raise GenerationDeadline("late")
        return ["<think>t</think><prompt>a</prompt>"]

    wrapped = await wrap(SEEDS, PLAN, FakeGenerator(late), FakeJudge({"reply": 7}), "base")
    m = await measure(wrapped, PLAN, DEFENDER, FakeJudge({"reply": 7}), "start")
    assert (m.unanswered, m.n_harmful, m.n_benign, m.unjudged) == (1, 3, 4, 0)


async def test_an_answer_that_the_context_cut_short_is_left_out_and_counted() -> None:
    def cut(ask: Ask) -> list[str | Completion]:
        return [completion("reply", "no_room" if ask.id.endswith(("-1", "-6")) else "length")]

    wrapped = await wrap(SEEDS, PLAN, ATTACKER, FakeJudge({"reply": 7}), "base")
    m = await measure(wrapped, PLAN, FakeGenerator(cut), FakeJudge({"reply": 7}), "start")
    assert (m.unanswered, m.n_harmful, m.n_benign, m.unjudged) == (2, 3, 3, 0)


async def test_not_more_is_asked_at_once_than_games_are_played() -> None:
    most = now = 0

    class Slow:
        async def generate(self, ask: Ask) -> list[Completion]:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return [completion("reply")]

    wrapped = await wrap(SEEDS, PLAN, ATTACKER, FakeJudge({"reply": 7}), "base")
    await measure(wrapped, PLAN, Slow(), FakeJudge({"reply": 7}), "start")
    assert most == 3


def evaluation(tmp_path: Path, judge: FakeJudge, seeds: list[Seed] = SEEDS) -> Evaluation:
    return Evaluation(PLAN, seeds, RunDir(tmp_path), ATTACKER, DEFENDER, judge)


async def test_a_start_on_which_the_judge_failed_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(JudgeAbsent, match="the judge failed on 8 of 8 held-out attacks before the first game"):
        await evaluation(tmp_path, Silent({})).start()
    assert not (tmp_path / "heldout.json").exists()


async def test_a_resumed_run_compares_with_the_same_attacks_and_refuses_other_seeds(tmp_path: Path) -> None:
    first = evaluation(tmp_path, FakeJudge({"reply": 7}))
    await first.start()
    again = evaluation(tmp_path, Silent({}))  # nothing is measured anew
    await again.start()
    assert again.results == first.results
    assert len(json.loads((tmp_path / "heldout.json").read_text())["attacks"]) == 8
    for others in (SEEDS[1:], [*SEEDS, Seed("x", "more", "benign")]):
        with pytest.raises(UserError, match=r"seeds\.heldout: changed"):
            await evaluation(tmp_path, FakeJudge({"reply": 7}), others).start()


def test_heldout_fractions_leave_out_what_the_judge_could_not_read() -> None:
    def verdicts(*scores: float | None) -> list[Verdict]:
        return [Verdict("j", "r", failure="x") if s is None else Verdict("j", "r", scores=(s,)) for s in scores]

    judged = [
        ("harmful", verdicts(9, 0)),
        ("harmful", verdicts(0, 4)),
        ("harmful", verdicts(0, 9)),
        ("harmful", verdicts(None, 9)),
        ("benign", verdicts(8, 0)),
        ("benign", verdicts(1, 9)),
    ]
    m = tally(
        judged, [("benign", "unwrapped"), ("harmful", "unwrapped"), ("benign", "unjudged"), ("harmful", "unanswered")]
    )
    assert (m.attack_success, m.deflection) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (m.over_refusal, m.benign_compliance) == (0.5, 0.5)
    assert (m.n, m.n_harmful, m.n_benign, m.unwrapped, m.unanswered) == (5, 3, 2, 2, 1)
    assert (m.unjudged, m.unjudged_harmful) == (2, 1)
    nothing = tally([], [])
    assert nothing.attack_success is None and nothing.n == 0


async def test_who_waits_is_told_how_many_are_done() -> None:
    told: list[tuple[str, int, int]] = []
    wrapped = await wrap(SEEDS, PLAN, ATTACKER, FakeJudge({}), "base", lambda *so_far: told.append(so_far))
    await measure(wrapped, PLAN, DEFENDER, FakeJudge({"reply": 7}), "start", lambda *so_far: told.append(so_far))
    assert told == [(what, k, 8) for what in ("attacks", "responses") for k in range(1, 9)]
