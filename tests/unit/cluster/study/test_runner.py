"""What the study runs, keeps, resumes and leaves out: the real runner over a `train` that is a script of a few lines."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.inputs.recipe_file import dump_recipe
from cluster.run.session import Interrupted, interrupts
from cluster.study.__main__ import app
from cluster.study.runner import PlannedRun, Runner, origin_of, plan
from cluster.study.settings import changes_of
from cluster.study.variants import CLAIMS, VARIANTS
from protocol.errors import UserError
from tests.paths import RECIPES
from tests.unit.cluster.study.study_runs import summary

STUDY = RECIPES / "study"
NAMES = [v.name for v in VARIANTS]

# Stands for `python -m cluster`: makes the run's directory and does what the test wrote down for this attempt.
TRAIN = """
import json, pathlib, signal, sys, time
root = pathlib.Path(sys.argv[1])
sets = dict(word.split("=", 1) for word in sys.argv if "=" in word)
name = pathlib.Path(sys.argv[-1]).name if "--resume" in sys.argv else sets["run.name"]
script = json.loads((root / "script.json").read_text())
run = root / "runs" / name
with (root / "calls.txt").open("a") as f:
    f.write(("resume " if "--resume" in sys.argv else "start ") + name + "\\n")
act = script["acts"][name].pop(0)
(root / "script.json").write_text(json.dumps(script))
if act == "refuse":
    print("advgame: no room")
    sys.exit(2)
run.mkdir(parents=True, exist_ok=True)
(run / "recipe.yaml").write_text(script["recipes"][name])
def end(status, code):
    (run / "summary.json").write_text(json.dumps({**script["summary"], "status": status, "note": "it broke"}))
    print(f"{status}: it broke")
    sys.exit(code)
if act == "hang":
    signal.signal(signal.SIGINT, lambda *_: end("interrupted", 130))
    (root / "hanging").touch()
    time.sleep(60)
end({"finish": "finished", "fail": "failed"}[act], {"finish": 0, "fail": 1}[act])
"""


class Stage:
    """A folder for runs, and what `train` will do about each of them, attempt by attempt."""

    def __init__(self, root: Path, acts: dict[str, list[str]]) -> None:
        self.root, self.lines = root, list[str]()
        seeds = sorted({int(name.rpartition("-s")[2]) for name in acts})
        variants = [name for name in NAMES if any(run.startswith(f"{name}-s") for run in acts)]
        self.planned = plan(variants, seeds, STUDY, root / "runs")
        recipes = {run.name: dump_recipe(run.recipe) for run in self.planned}
        (root / "script.json").write_text(json.dumps({"acts": acts, "recipes": recipes, "summary": summary()}))
        (root / "train.py").write_text(TRAIN)

    def run(self, limit_s: float = 30.0) -> dict[str, str]:
        command = (sys.executable, str(self.root / "train.py"), str(self.root))
        return Runner(self.lines.append, command, limit_s).run(self.planned)

    def status(self, name: str) -> str:
        text: str = json.loads((self.root / "runs" / name / "summary.json").read_text())["status"]
        return text

    @property
    def calls(self) -> list[str]:
        return (self.root / "calls.txt").read_text().splitlines()


def origin(stage: Stage, name: str) -> dict[str, object]:
    found: PlannedRun = next(run for run in stage.planned if run.name == name)
    return origin_of(found)


def test_every_variant_has_a_recipe_that_says_only_what_differs(tmp_path: Path) -> None:
    assert {path.stem for path in STUDY.glob("*.yaml")} == set(NAMES)
    assert {name for claim in CLAIMS for name in (claim.better, claim.worse)} <= set(NAMES)
    planned = {run.variant: run for run in plan(NAMES, [1], STUDY, tmp_path)}
    base = planned["simultaneous"].recipe
    changed = {name: set(changes_of(run.recipe, base)) for name, run in planned.items()}
    players = ("learners.attacker", "learners.defender")
    on_policy = {f"{p}.{key}" for p in players for key in ("reference", "sampler")}
    assert changed["simultaneous"] == set()
    assert changed["alternating"] == {"learners.alternate_every"}
    assert changed["frozen-attacker"] == {"learners.attacker.train"}
    assert changed["on-policy"] == on_policy
    assert changed["pointwise"] == {"judge.form"}
    assert changed["grpo"] == on_policy | {f"{p}.loss" for p in players}
    assert planned["frozen-attacker"].steps == {"attacker": 0, "defender": base.run.steps}


def test_seeds_come_before_variants_so_that_a_cut_study_is_balanced(tmp_path: Path) -> None:
    names = [run.name for run in plan(["simultaneous", "grpo"], [1, 2], STUDY, tmp_path)]
    assert names == ["simultaneous-s1", "grpo-s1", "simultaneous-s2", "grpo-s2"]


def test_unequal_updates_are_refused(tmp_path: Path) -> None:
    for name, steps in (("simultaneous", 10), ("grpo", 20)):
        (tmp_path / f"{name}.yaml").write_text(f"run: {{steps: {steps}}}\n")
    with pytest.raises(UserError, match=r"run.steps is \[10, 20\]; variants compare at equal updates"):
        plan(["simultaneous", "grpo"], [1], tmp_path, tmp_path / "runs")


def test_finished_runs_are_kept_and_only_the_missing_ones_are_run(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"simultaneous-s1": ["finish"], "simultaneous-s2": ["finish"]})
    assert stage.run() == {}
    assert stage.calls == ["start simultaneous-s1", "start simultaneous-s2"]
    assert stage.run() == {}
    assert len(stage.calls) == 2
    assert origin(stage, "simultaneous-s1")["attempts"] == 1
    assert "attack success 0.70 -> 0.10" in stage.lines[2]
    assert stage.lines[-1] == "2 of 2 runs are finished, 0 to run"


def test_a_failed_run_is_resumed_once_and_counts_if_that_finishes_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"simultaneous-s1": ["fail", "finish"]})
    assert stage.run() == {}
    assert stage.calls == ["start simultaneous-s1", "resume simultaneous-s1"]
    assert origin(stage, "simultaneous-s1")["attempts"] == 2


def test_a_run_that_fails_twice_is_left_out_and_the_others_are_run(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"simultaneous-s1": ["fail", "fail"], "simultaneous-s2": ["finish"]})
    assert stage.run() == {"simultaneous-s1": "exit status 1: failed: it broke"}
    assert stage.status("simultaneous-s2") == "finished"


def test_a_mistake_in_the_input_is_not_tried_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"simultaneous-s1": ["refuse", "finish"]})
    assert stage.run() == {"simultaneous-s1": "exit status 2: advgame: no room"}
    assert stage.calls == ["start simultaneous-s1"]


def test_a_run_with_other_settings_is_refused_before_anything_starts(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"simultaneous-s1": ["finish"], "simultaneous-s2": ["finish"]})
    other = stage.planned[1].recipe
    kept = other.model_copy(update={"heldout": other.heldout.model_copy(update={"samples": 7})})
    (tmp_path / "runs" / "simultaneous-s2").mkdir(parents=True)
    (tmp_path / "runs" / "simultaneous-s2" / "recipe.yaml").write_text(dump_recipe(kept))
    with pytest.raises(UserError, match=r"simultaneous-s2: made with other settings than .*simultaneous.yaml"):
        stage.run()
    assert not (tmp_path / "calls.txt").exists()


def test_a_run_past_its_limit_is_interrupted_then_resumed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"simultaneous-s1": ["hang", "finish"]})
    assert stage.run(limit_s=2.0) == {}
    assert stage.calls == ["start simultaneous-s1", "resume simultaneous-s1"]


def test_ctrl_c_ends_the_run_that_is_going_and_the_next_study_resumes_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"simultaneous-s1": ["hang", "finish"]})

    def interrupt_once_it_hangs() -> None:
        while not (tmp_path / "hanging").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_once_it_hangs, daemon=True).start()
    with pytest.raises(Interrupted), interrupts():
        stage.run()
    assert stage.status("simultaneous-s1") == "interrupted"
    assert stage.run() == {}
    assert stage.calls == ["start simultaneous-s1", "resume simultaneous-s1"]


def test_an_unknown_variant_is_one_line_that_lists_the_choices() -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["--variant", "nonsense"])
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith("--variant nonsense: unknown; choose among simultaneous, alternating")
