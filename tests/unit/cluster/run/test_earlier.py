"""A run is resumed: each file that its earlier part left is whole, or one line names it and what to do, before anything starts."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cluster.measure.heldout import Measurement
from cluster.measure.points import HeldoutPoint
from cluster.measure.record import HeldoutRecord
from cluster.observe.history import History
from cluster.observe.progress import Progress
from cluster.plan.plan import Plan
from cluster.publish.stats import StepReport
from cluster.run import train
from cluster.run.earlier import check_earlier
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.types import Seed
from tests.unit.cluster.plan.plans import parse_plan

SECRET = "an attack"
POINT = HeldoutPoint("start", 0, {"attacker": 0, "defender": 0}, False, 0.5, None, 0.5, 2, 2, 0, 9.0, 1.0)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Of a run whose earlier part left every file."""
    made = parse_plan({"run": {"dir": str(tmp_path)}}, tmp_path)
    seeds = [Seed("h0", "harm", "harmful")]
    inputs = replace(made.inputs, heldout=seeds, probe=["a label"])  # type: ignore[arg-type]
    made = replace(made, resumed=True, inputs=inputs, run_dir=RunDir(tmp_path / "run"))
    run_dir = made.run_dir
    run_dir.path.mkdir()
    history = History(run_dir)
    history.add([StepReport("defender", 1, 1, 9.0, {"loss": 0.5})])
    history.note_heldout(POINT)
    history.write()
    record = HeldoutRecord(run_dir)
    record.add(POINT)
    record.skip("busy")
    start = Measurement(0.5, None, 0.5, None, 1, 1, 0, 0, 0, 0, 0).as_dict()
    attacks = [{"seed": "h0", "text": SECRET}]
    run_dir.heldout.write_text(json.dumps({"start": start, "seeds": ["h0"], "attacks": attacks, "missing": []}))
    answers = [{"word": "a", "scores": [1.0]}, {"word": None, "scores": None}]
    run_dir.probe.write_text(json.dumps({"step": 3, "labels": "d", "answers": answers}) + "\n")
    return made


def rewrite(file: str, **change: Any) -> Any:
    """A file that parses, in which something is not what is written there."""

    def write(run_dir: RunDir) -> None:
        path = run_dir.path / file
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return write


def fill(file: str, content: bytes) -> Any:
    return lambda run_dir: (run_dir.path / file).write_bytes(content)


def cut(file: str) -> Any:
    """A file of which only the first half is there."""

    def write(run_dir: RunDir) -> None:
        path = run_dir.path / file
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return write


def another_table(**columns: Any) -> Any:
    return lambda run_dir: pq.write_table(pa.table(columns), run_dir.metrics)


ALL = ("metrics.parquet", "heldout_points.json", "heldout.json", "probe.jsonl")


def test_whole_files_and_none_are_no_reason_to_end(plan: Plan) -> None:
    check_earlier(plan)
    for name in ALL:
        (plan.run_dir.path / name).unlink()
    check_earlier(plan)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((name, cut(name)) for name in ALL),
        *((name, fill(name, b"\xff\xfe" + SECRET.encode())) for name in ALL),
        *((name, fill(name, b"")) for name in ALL[:3]),
        *((name, fill(name, b"[]")) for name in ALL),
        ("metrics.parquet", another_table(a=[1])),
        ("metrics.parquet", another_table(player=[SECRET], step=[1], version=[1], time=[1.0])),
        ("metrics.parquet", another_table(player=["defender"], step=[None], version=[1], time=[1.0])),
        ("heldout_points.json", rewrite("heldout_points.json", points=[{"occasion": SECRET}])),
        ("heldout_points.json", rewrite("heldout_points.json", skipped={SECRET: 1})),
        ("heldout_points.json", rewrite("heldout_points.json", reached="x")),
        ("heldout.json", rewrite("heldout.json", start={"n": SECRET})),
        ("heldout.json", rewrite("heldout.json", attacks=[SECRET])),
        ("probe.jsonl", rewrite("probe.jsonl", answers=[{}])),
    ],
)
def test_a_damaged_file_is_one_line_with_its_name_and_the_remedy(plan: Plan, file: str, damage: Any) -> None:
    damage(plan.run_dir)
    with pytest.raises(UserError) as told:
        check_earlier(plan)
    line = str(told.value)
    assert line.startswith(f"--resume: {plan.run_dir.path / file} is damaged or cannot be read (")
    assert "; put a whole copy back, or " in line and "\n" not in line and SECRET not in line
    check_earlier(replace(plan, resumed=False))


def test_other_seeds_are_no_damage_and_are_told_as_such(plan: Plan) -> None:
    rewrite("heldout.json", seeds=["other"])(plan.run_dir)
    with pytest.raises(UserError, match=r"^seeds\.heldout: changed since .*; put the same file back to resume$"):
        check_earlier(plan)


def test_it_is_found_before_ray_starts(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "ray_session", lambda *_: pytest.fail("Ray was started"))
    cut("metrics.parquet")(plan.run_dir)
    with pytest.raises(UserError, match=r"metrics\.parquet"):
        train.run_plan(plan, Progress(Console(file=StringIO())), 0.0)


@pytest.mark.parametrize("content", ["[]", "3", "null", "\udcff"])
def test_a_summary_that_is_none_is_taken_for_a_run_that_was_cut_off(tmp_path: Path, content: str) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.summary.write_bytes(content.encode(errors="surrogateescape"))
    assert run_dir.read_summary() == {}


def test_a_mistake_that_shows_while_the_run_goes_on_is_its_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Run:
        async def drive(self) -> None:
            raise UserError("seeds.heldout: changed; put the same file back")

        def summary(self, _end: object, note: str) -> dict[str, Any]:
            said.append(note)
            return {"note": note, "heldout": {}}

    monkeypatch.setattr(train, "_write_cards", lambda *_: None)
    monkeypatch.setattr(train, "run_table", lambda _: "")
    run: Any = Run()
    assert train._drive(run, Progress(Console(file=StringIO())), RunDir(tmp_path)) == 2
    assert said == ["seeds.heldout: changed; put the same file back"]
