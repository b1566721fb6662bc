"""Held-out scores while the run learns: what is due, which attacks, and a measurement that is late, broken or overtaken."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.measure.background import (
    AT_LEAST,
    BackgroundMeasurer,
    Decision,
    choose_share,
    decide,
    name_versions,
    point_of,
    says_too_little,
)
from cluster.measure.heldout import Attack, Replies, Reply
from cluster.measure.points import HeldoutPoint
from cluster.measure.record import HeldoutRecord
from cluster.plan.heldout import HeldoutPlan, plan_heldout
from cluster.publish.stats import PlayerPushes, PublisherStats, WorkerState
from cluster.rundir import RunDir
from protocol.interfaces import Generator, Judge
from protocol.recipe import parse_recipe
from protocol.types import Ask, Completion, JudgeRequest, Seed, Verdict
from tests.unit.fakes import FakeGenerator, FakeJudge, completion

PLAN = plan_heldout(parse_recipe({"heldout": {"every": 10, "deadline_s": 5.0}}))
ATTACKS = [Attack(Seed(f"h{k}", "harm", "harmful"), f"attack {k}") for k in range(4)] + [
    Attack(Seed(f"b{k}", "help", "benign"), f"attack {k}") for k in range(4)
]
NAMED = {"attacker": 4, "defender": 7}
JUDGE = FakeJudge({"reply": 7.0})


def answer(version: int = 7, last: int = 7) -> FakeGenerator:
    return FakeGenerator(lambda ask: [Completion.of(text="reply", version=version, last_version=last)])


def verdicts(*scores: float) -> tuple[Verdict, ...]:
    return tuple(Verdict("j", "r", scores=(s,)) for s in scores)


@pytest.mark.parametrize(
    ("step", "reached", "busy", "wanted"),
    [
        (9, 0, False, Decision()),
        (10, 0, False, Decision(True)),
        (12, 0, False, Decision(True)),  # the poll saw neither 10 nor 11
        (12, 10, False, Decision()),
        (41, 10, False, Decision(True, 2, "passed")),  # 20 and 30 went by unseen, 40 is measured
        (20, 10, True, Decision(False, 1, "busy")),
        (40, 10, True, Decision(False, 3, "busy")),
        (95, 80, False, Decision(True)),  # half an interval before the end is early enough
        (96, 80, False, Decision(False, 1, "near_end")),
        (100, 90, True, Decision(False, 1, "near_end")),
        (40, 45, False, Decision()),  # resumed from a checkpoint before the last measurement
    ],
)
def test_one_is_due_when_a_multiple_is_passed_unless_the_end_is_near(
    step: int, reached: int, busy: bool, wanted: Decision
) -> None:
    assert decide(step, reached, every=10, steps=100, busy=busy) == wanted


def test_nothing_is_due_where_the_recipe_or_the_run_gives_nothing_to_see() -> None:
    assert decide(50, 0, every=0, steps=100, busy=False) == Decision()

    def every(**values: Any) -> int:
        return plan_heldout(parse_recipe({"heldout": {"every": 10}, **values})).every

    unjudged = {
        "judge": {"kind": "none"},
        "game": dict.fromkeys(("faithfulness", "attacker_judge", "defender_judge"), False),
    }
    assert every() == 10
    assert every(learners={"defender": {"train": False}}) == 0
    assert every(**unjudged) == 0
    assert every(**unjudged, heldout={"every": 10, "judge": "rules"}) == 10


def test_measuring_takes_an_eighth_of_what_games_have_in_flight() -> None:
    def at_once(in_flight: int) -> int:
        return plan_heldout(parse_recipe({"game": {"in_flight": in_flight}})).at_once

    assert (at_once(256), at_once(64), at_once(8)) == (32, 8, 2)


def attacks(harmful: int, benign: int, samples: int = 1) -> list[Attack]:
    seeds = [Seed(f"h{k}", "t", "harmful") for k in range(harmful)] + [
        Seed(f"b{k}", "t", "benign") for k in range(benign)
    ]
    return [Attack(seed, f"{seed.id} {n}") for seed in seeds for n in range(samples)]


@pytest.mark.parametrize(
    ("harmful", "benign", "share", "wanted"),
    [
        (1000, 500, 0.1, {"harmful": 100, "benign": 50}),
        (1000, 100, 0.1, {"harmful": 100, "benign": AT_LEAST}),  # 10 would say nothing
        (20, 400, 0.1, {"harmful": 20, "benign": 40}),  # all that there are
        (1000, 0, 1.0, {"harmful": 1000}),
        (0, 0, 0.5, {}),
    ],
)
def test_a_share_of_each_category_is_chosen_but_enough_to_say_something(
    harmful: int, benign: int, share: float, wanted: dict[str, int]
) -> None:
    given = attacks(harmful, benign)
    places = choose_share(given, share, seed=0)
    assert Counter(given[k].seed.category for k in places) == wanted
    assert list(places) == sorted(set(places))


def test_the_share_is_the_same_each_time_and_another_for_another_seed() -> None:
    given = attacks(400, 400)
    assert choose_share(given, 0.1, 0) == choose_share(given, 0.1, 0) != choose_share(given, 0.1, 1)


def test_every_seed_has_its_turn_before_one_is_asked_twice() -> None:
    given = attacks(40, 40, samples=3)
    chosen = Counter(given[k].seed.id for k in choose_share(given, 0.5, 0))  # 60 of 120 attacks, on 40 seeds
    assert len(chosen) == 80 and set(chosen.values()) == {1, 2}


def test_a_measurement_is_named_by_the_newest_version_that_is_served() -> None:
    workers = tuple(WorkerState(f"d-{k}", "healthy", v, "") for k, v in enumerate((5, 6, -1)))
    stats = PublisherStats(
        True, {"attacker": PlayerPushes(newest=3), "defender": PlayerPushes(newest=8, workers=workers)}
    )
    assert name_versions(stats) == {"attacker": 3, "defender": 6}


REPLIES = Replies(
    (
        Reply("harmful", verdicts(9, 0), (7, 7)),
        Reply("harmful", verdicts(0, 9), (7, 7)),
        Reply("benign", verdicts(9, 0), (7, 8)),
        Reply("benign"),
    ),
    time_s=100.0,
    seconds=2.5,
)


def test_a_point_says_what_it_is_about_and_of_whom() -> None:
    point = point_of("step-20", 20, NAMED, REPLIES)
    assert point == HeldoutPoint("step-20", 20, NAMED, True, 0.5, 0.0, 1.0, 2, 1, 1, 100.0, 2.5)
    same = point_of("start", 0, NAMED, REPLIES, places=(0, 3))
    assert (same.mixed, same.attack_success, same.over_refusal) == (False, 1.0, None)
    assert (same.n_harmful, same.n_benign, same.missing) == (1, 0, 1)
    assert point_of("end", 20, {"attacker": 4, "defender": 8}, REPLIES, places=(0,)).mixed  # older ones mix, too


@pytest.mark.parametrize(
    ("judged", "missing", "limit", "wanted"),
    [(0, 8, None, True), (1, 7, None, False), (6, 2, 0.25, False), (5, 3, 0.25, True), (0, 0, 0.25, True)],
)
def test_what_is_mostly_missing_is_no_score(judged: int, missing: int, limit: float | None, wanted: bool) -> None:
    point = replace(point_of("step-1", 1, NAMED, REPLIES), n_harmful=judged, n_benign=0, missing=missing)
    assert says_too_little(point, limit) == wanted


# The shell.


class Told:
    """Notes the points that it is told."""

    def __init__(self) -> None:
        self.points: list[HeldoutPoint] = []

    def __call__(self, point: HeldoutPoint) -> None:
        self.points.append(point)


def measurer(
    tmp_path: Path, defender: Generator, judge: Judge = JUDGE, plan: HeldoutPlan = PLAN
) -> tuple[BackgroundMeasurer, HeldoutRecord, Told]:
    record, told = HeldoutRecord(RunDir(tmp_path)), Told()
    return BackgroundMeasurer(plan, 100, ATTACKS, defender, judge, record, told), record, told


class Held:
    """A Defender that answers when it is let."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.open = self.most = 0

    async def generate(self, ask: Ask) -> list[Completion]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self.free.wait()
            return [completion("reply", version=7)]
        finally:
            self.open -= 1


async def test_the_same_attacks_are_measured_each_time_and_every_point_is_told_and_kept(tmp_path: Path) -> None:
    defender = answer()
    background, record, told = measurer(tmp_path, defender)
    for step in (0, 9, 10, 11, 22):
        background.measure_if_due(step, NAMED)
        await background.finish(5.0)
    assert [(p.occasion, p.step, p.versions, p.mixed) for p in told.points] == [
        ("step-10", 10, NAMED, False),
        ("step-22", 22, NAMED, False),
    ]
    assert told.points == list(record.points) and record.skipped == {}
    assert all((p.n_harmful, p.n_benign, p.missing) == (4, 4, 0) for p in told.points)
    asked = [ask.messages[-1]["content"] for ask in defender.asks]
    assert asked[:8] == asked[8:] and len(set(asked[:8])) == 4
    assert len({ask.seeds for ask in defender.asks}) == 16  # drawn anew each time
    kept = json.loads((tmp_path / "heldout_points.json").read_text())
    assert [p["occasion"] for p in kept["points"]] == ["step-10", "step-22"] and kept["reached"] == 22


@pytest.mark.parametrize(("first", "last", "mixed"), [(7, 7, False), (7, 8, True), (8, 8, True), (6, 6, True)])
async def test_a_version_that_moves_meanwhile_shows(tmp_path: Path, first: int, last: int, mixed: bool) -> None:
    background, record, _ = measurer(tmp_path, answer(first, last))
    background.measure_if_due(10, NAMED)
    await background.finish(5.0)
    assert [p.mixed for p in record.points] == [mixed]


async def test_few_asks_are_open_at_once_so_that_games_go_on(tmp_path: Path) -> None:
    defender = Held()
    background, record, _ = measurer(tmp_path, defender, plan=replace(PLAN, at_once=3))
    background.measure_if_due(10, NAMED)
    await asyncio.sleep(0.01)
    assert defender.open == 3
    defender.free.set()
    await background.finish(5.0)
    assert defender.most == 3 and len(record.points) == 1


async def test_one_that_is_due_while_another_is_under_way_is_counted_once(tmp_path: Path) -> None:
    defender = Held()
    background, record, told = measurer(tmp_path, defender)
    for step in (10, 20, 21, 29):
        background.measure_if_due(step, NAMED)
        await asyncio.sleep(0)
    assert record.skipped == {"busy": 1}
    defender.free.set()
    await background.finish(5.0)
    background.measure_if_due(30, NAMED)
    await background.finish(5.0)
    assert [p.step for p in told.points] == [10, 30] and record.skipped == {"busy": 1}


async def test_one_that_is_late_is_given_up_counted_and_leaves_no_ask_open(tmp_path: Path) -> None:
    defender = Held()
    background, record, told = measurer(tmp_path, defender, plan=replace(PLAN, deadline_s=0.02))
    background.measure_if_due(10, NAMED)
    await background.finish(5.0)
    assert (record.skipped, told.points, defender.open) == ({"late": 1}, [], 0)
    defender.free.set()
    background.measure_if_due(20, NAMED)
    await background.finish(5.0)
    assert [p.step for p in told.points] == [20]


async def test_a_judge_that_fails_gives_no_score(tmp_path: Path) -> None:
    background, record, told = measurer(tmp_path, answer(), FakeJudge({}))
    background.measure_if_due(10, NAMED)
    await background.finish(5.0)
    assert (record.skipped, told.points) == ({"unjudged": 1}, [])


async def test_a_few_that_the_judge_cannot_read_are_counted_in_the_score(tmp_path: Path) -> None:
    class Picky(FakeJudge):
        def _one(self, r: JudgeRequest) -> Verdict:
            return Verdict("j", "r", failure="no") if r.query == "attack 0" else super()._one(r)

    background, record, _ = measurer(tmp_path, answer(), Picky({"reply": 7.0}))
    background.measure_if_due(10, NAMED)
    await background.finish(5.0)
    assert [(p.n_harmful, p.n_benign, p.missing) for p in record.points] == [(3, 3, 2)]


async def test_one_that_breaks_is_counted_and_ends_neither_the_run_nor_the_next(tmp_path: Path) -> None:
    class Broken:
        def __init__(self) -> None:
            self.broken = True
            self.open = 0

        async def generate(self, ask: Ask) -> list[Completion]:
            self.open += 1
            try:
                await asyncio.sleep(0)
                if self.broken and ask.id.endswith("-1"):
                    raise ValueError("no")
                await asyncio.sleep(0 if not self.broken else 60)
                return [completion("reply", version=7)]
            finally:
                self.open -= 1

    defender = Broken()
    background, record, told = measurer(tmp_path, defender)
    background.measure_if_due(10, NAMED)
    await background.finish(5.0)
    assert (record.skipped, told.points, defender.open) == ({"failed": 1}, [], 0)
    defender.broken = False
    background.measure_if_due(20, NAMED)
    await background.finish(5.0)
    assert [p.step for p in told.points] == [20]


async def test_the_end_waits_for_one_under_way_but_not_for_ever(tmp_path: Path) -> None:
    defender = Held()
    background, record, told = measurer(tmp_path, defender)
    background.measure_if_due(10, NAMED)
    asyncio.get_running_loop().call_later(0.01, defender.free.set)
    await background.finish(5.0)
    assert [p.step for p in told.points] == [10] and record.skipped == {}

    stuck = Held()
    background, record, _ = measurer(tmp_path, stuck)
    background.measure_if_due(20, NAMED)
    await background.finish(0.01)
    assert record.skipped == {"ended": 1} and stuck.open == 0
    await background.finish(0.01)
    background.close()
    assert record.skipped == {"ended": 1}, "it is counted once"


async def test_a_run_that_is_cut_short_counts_what_it_gives_up(tmp_path: Path) -> None:
    background, record, _ = measurer(tmp_path, Held())
    background.measure_if_due(10, NAMED)
    await asyncio.sleep(0)
    background.close()
    assert record.skipped == {"ended": 1}


async def test_a_resumed_run_goes_on_with_its_points_and_does_not_measure_a_step_twice(tmp_path: Path) -> None:
    background, record, _ = measurer(tmp_path, answer())
    background.measure_if_due(31, NAMED)
    await background.finish(5.0)
    assert record.skipped == {"passed": 2}

    defender = answer(last=9)
    background, again, told = measurer(tmp_path, defender)
    assert [asdict(p) for p in again.points] == [asdict(p) for p in record.points]
    assert again.skipped == {"passed": 2}
    background.measure_if_due(25, NAMED)  # the checkpoint that it resumes from is older than the last point
    background.measure_if_due(39, NAMED)
    await background.finish(5.0)
    assert told.points == [] and defender.asks == []
    background.measure_if_due(40, NAMED)
    await background.finish(5.0)
    assert [p.step for p in again.points] == [31, 40]


async def test_a_measurement_of_the_same_occasion_takes_the_place_of_the_first(tmp_path: Path) -> None:
    record = HeldoutRecord(RunDir(tmp_path))
    for step in (90, 100):
        record.add(point_of("end", step, NAMED, REPLIES))
    assert [p.step for p in HeldoutRecord(RunDir(tmp_path)).points] == [100]


async def test_a_disk_that_is_full_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cluster.measure.record.write_json", full)
    background, record, told = measurer(tmp_path, answer())
    background.measure_if_due(10, NAMED)
    await background.finish(5.0)
    assert [p.step for p in told.points] == [10] and record.skipped == {}


async def test_no_attack_no_measurement(tmp_path: Path) -> None:
    nobody: Sequence[Attack] = []
    record = HeldoutRecord(RunDir(tmp_path))
    background = BackgroundMeasurer(PLAN, 100, nobody, answer(), JUDGE, record, Told())
    background.measure_if_due(10, NAMED)
    assert not background.busy and not (tmp_path / "heldout_points.json").exists()
