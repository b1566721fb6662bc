"""What a run measures, in its order: the start, shares while it learns, the end; and what a resumed run goes on with."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

import cluster.run.measurements as module
from cluster.observe.history import History
from cluster.observe.progress import Progress
from cluster.plan.plan import Plan
from cluster.publish.stats import StepReport
from cluster.run.measurements import Measurements
from cluster.rundir import RunDir
from cluster.sandbox.rule_judge import RuleJudge
from judge.match.judge import MatchJudge
from protocol.roles import PLAYERS
from protocol.types import Ask, Completion, Seed
from tests.unit.cluster.plan.plans import parse_plan
from tests.unit.fakes import FakeGenerator, FakeJudge

SEEDS = [Seed(f"h{k}", f"harm {k}", "harmful") for k in range(50)] + [
    Seed(f"b{k}", f"help {k}", "benign") for k in range(50)
]
VERSIONS = {"attacker": 3, "defender": 4}
BEFORE = {"attacker": 0, "defender": 0}


class Pools:
    """A run's players and judge. The Defender's version is set by the test; it answers everything until `tamed`."""

    def __init__(self) -> None:
        self.version, self.tamed = 0, False
        self.attacker = FakeGenerator(lambda ask: ["<think>t</think><prompt>attack</prompt>"])
        self.defender = FakeGenerator(self._answer)
        self.judge = FakeJudge({"yes": 9.0, "no": 0.0})

    def _answer(self, ask: Ask) -> list[Completion]:
        return [Completion.of(text="no" if self.tamed else "yes", version=self.version)]

    def missed(self) -> dict[str, int]:
        return {}


class Bench:
    """The measurements of one run, with what they say and write."""

    def __init__(self, plan: Plan, pools: Pools) -> None:
        self.out = io.StringIO()
        self.history = History(plan.run_dir)
        self.measurements = Measurements(plan, Progress(Console(file=self.out, width=200)), self.history)
        self.pools = pools

    @property
    def occasions(self) -> list[str]:
        return [p.occasion for p in self.measurements.points]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    def make(**heldout: Any) -> Bench:
        plan = parse_plan(
            {"run": {"steps": 20}, "heldout": {"every": 5, "share": 0.1, **heldout}},
            tmp_path,
            heldout=SEEDS,
        )
        pools = Pools()
        monkeypatch.setattr(module, "Pools", lambda *_: pools)
        return Bench(plan, pools)

    return make


async def until(count: int, measurements: Measurements) -> None:
    for _ in range(500):
        await asyncio.sleep(0)
        if len(measurements.points) >= count:
            return
    raise AssertionError(f"no point came: {measurements.points}")


PARTS: Any = SimpleNamespace(handle=lambda role: None)


async def test_a_run_has_points_about_the_same_attacks_from_its_start_to_its_end(bench: Callable[..., Bench]) -> None:
    b = bench()
    m, pools = b.measurements, b.pools
    await m.start(PARTS, BEFORE)
    b.history.add([StepReport(p, n, n, 1.0, {}) for n in range(1, 21) for p in PLAYERS])
    pools.version = 4
    m.measure_if_due(5, VERSIONS)
    await until(2, m)
    pools.tamed, pools.version = True, 20
    m.measure_if_due(10, VERSIONS)  # the version moved on before the first answer
    await until(3, m)
    m.measure_if_due(20, VERSIONS)
    await m.end({"attacker": 20, "defender": 20})
    assert b.occasions == ["start", "step-5", "step-10", "end", "end_trained_attacker"]
    assert [p.step for p in m.points] == [0, 5, 10, 20, 20]
    assert [p.versions["defender"] for p in m.points] == [0, 4, 4, 20, 20]
    assert [p.mixed for p in m.points] == [False, False, True, False, False]
    assert [p.attack_success for p in m.points] == [1.0, 1.0, 0.0, 0.0, 0.0]
    # 32 of each category, of the 50 that are measured at the start and the end
    assert [p.n_harmful for p in m.points] == [32, 32, 32, 32, 50]
    assert (m.heldout["start"].n_harmful, m.heldout["end"].n_harmful) == (50, 50)
    assert m.skipped == {"near_end": 2}  # those of steps 15 and 20
    said = b.out.getvalue()
    assert "held-out at step 5, Defender v4: attack success 100 %, over-refusal 100 % (n 64)" in said
    assert "held-out at step 10, Defender v4 and others: attack success 0 %" in said
    b.history.write()
    rows = pq.read_table(m._plan.run_dir.metrics).to_pylist()
    scores = {r["step"]: r["heldout_attack_success"] for r in rows if r["heldout_version"] is not None}
    assert scores == {5: 1.0, 10: 0.0, 20: 0.0}


async def test_a_resumed_run_keeps_its_points(bench: Callable[..., Bench]) -> None:
    first = bench()
    await first.measurements.start(PARTS, BEFORE)
    first.measurements.measure_if_due(5, VERSIONS)
    await until(2, first.measurements)
    first.measurements.measure_if_due(10, VERSIONS)
    first.measurements.close()

    again = bench()
    assert again.measurements.points == first.measurements.points, "before anything is measured anew"
    await again.measurements.start(PARTS, BEFORE)
    assert again.pools.defender.asks == [] and again.occasions == ["start", "step-5"]
    assert again.measurements.skipped == {"ended": 1}
    again.measurements.measure_if_due(15, VERSIONS)
    await until(3, again.measurements)
    assert again.occasions == ["start", "step-5", "step-15"]
    one, two = (sorted({a.messages[-1]["content"] for a in b.pools.defender.asks}) for b in (first, again))
    assert two and set(two) <= set(one)


async def test_without_measurements_in_between_start_and_end_are_about_all_attacks(
    bench: Callable[..., Bench],
) -> None:
    b = bench(every=0)
    await b.measurements.start(PARTS, BEFORE)
    for step in range(21):
        b.measurements.measure_if_due(step, VERSIONS)
    await b.measurements.end(VERSIONS)
    assert b.occasions == ["start", "end", "end_trained_attacker"]
    assert [p.n_harmful for p in b.measurements.points] == [50, 50, 50] and b.measurements.skipped == {}


async def test_where_nothing_is_held_out_there_are_no_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Pools", lambda *_: Pools())
    plan = parse_plan({"run": {"steps": 20}, "seeds": {"heldout": None}}, tmp_path)
    m = Measurements(plan, Progress(Console(file=io.StringIO())), History(plan.run_dir))
    await m.start(PARTS, BEFORE)
    m.measure_if_due(19, VERSIONS)
    await m.end(VERSIONS)
    assert m.points == () and m.skipped == {} and not RunDir(tmp_path).heldout_points.exists()


def test_the_held_out_judge_may_be_another_than_the_games() -> None:
    assert module.make_apart("run") is None
    assert isinstance(module.make_apart("rules"), RuleJudge) and isinstance(module.make_apart("match"), MatchJudge)
