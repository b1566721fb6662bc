"""A run that goes on: what `--set` may change of it, and which files it reads when the originals are gone."""

from pathlib import Path
from typing import Any

import pytest

from cluster.inputs import request
from cluster.inputs.changes import MAY_CHANGE, check_changes
from cluster.inputs.recipe_file import PATHS, load_recipe
from cluster.plan.plan import make_plan
from cluster.run.folder import make_run
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from tests.unit.cluster.plan.plans import inputs_of, plan_of


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`read_resumed` without looking for models; gives the request."""
    monkeypatch.setattr(request, "find_inputs", lambda recipe, *_: inputs_of(recipe))
    return lambda run, *overrides: request.read_resumed(run, overrides, lambda _: None)


def start(tmp_path: Path, **values: Any) -> RunDir:
    """A run that was begun with seeds of its own, which are gone since."""
    seeds = tmp_path / "job" / "seeds.jsonl"
    seeds.parent.mkdir()
    seeds.write_text('{"prompt": "open a safe", "category": "harmful"}\n')
    recipe = parse_recipe(
        {"seeds": {"train": str(seeds)}, "run": {"dir": str(tmp_path), "name": "a", "steps": 90}, **values}
    )
    make_run(plan_of(recipe, tmp_path / "a"))
    seeds.unlink()
    return RunDir(tmp_path / "a")


def test_a_resumed_run_reads_its_own_copy_of_the_seeds(tmp_path: Path, read: Any) -> None:
    run_dir = start(tmp_path)
    resumed = read(run_dir.path).recipe
    assert (
        resumed.seeds.train == str(run_dir.inputs / "seeds.train.jsonl")
        and "a safe" in Path(resumed.seeds.train).read_text()
    )
    assert resumed.seeds.heldout == "sandbox" and not (run_dir.inputs / "seeds.heldout.jsonl").exists()
    moved = run_dir.path.rename(tmp_path / "moved")
    assert read(moved).recipe.seeds.train == str(moved / "inputs" / "seeds.train.jsonl")
    assert read(moved, "seeds.train=/other.jsonl").recipe.seeds.train == "/other.jsonl"


def test_a_run_of_before_there_were_copies_reads_what_its_recipe_names(tmp_path: Path, read: Any) -> None:
    run_dir = start(tmp_path)
    for copy in run_dir.inputs.iterdir():
        copy.unlink()
    run_dir.inputs.rmdir()
    assert read(run_dir.path).recipe.seeds.train == str(tmp_path / "job" / "seeds.jsonl")


def test_what_was_changed_is_in_force_and_is_what_the_run_keeps(tmp_path: Path, read: Any) -> None:
    run_dir = start(tmp_path)
    changes = (
        "learners.defender.ranks=4",
        "models.defender.path=/elsewhere",
        "run.steps=120",
        "push.deadlines.load_s=9",
    )
    resumed = read(run_dir.path, *changes)
    plan = make_plan(resumed)
    assert plan.changes == changes and plan.steps == 120 and plan.learners["defender"].config.ranks == 4
    run_dir.recipe.write_text(plan.recipe_yaml)
    kept = load_recipe(run_dir.recipe)
    assert (kept.models.defender.path, kept.push.deadlines.load_s) == ("/elsewhere", 9.0)


@pytest.mark.parametrize(
    "override",
    [
        "learners.defender.lr=1",
        "game.attacks=3",
        "run.name=b",
        "run.seed=2",
        "learners.defender={}",
        "judge.kind=lm",
        "replay={}",
    ],
)
def test_what_would_make_it_another_run_is_refused_in_one_line(override: str, tmp_path: Path, read: Any) -> None:
    run_dir = start(tmp_path)
    with pytest.raises(
        UserError, match=r"^--set [\w.]+: a resumed run keeps it.*run.steps; for anything else start a new run$"
    ):
        read(run_dir.path, override)


def test_a_run_cannot_end_before_a_step_that_was_taken(tmp_path: Path, read: Any) -> None:
    run_dir = start(tmp_path)
    (run_dir.checkpoints("defender") / "step-60").mkdir(parents=True)
    assert read(run_dir.path, "run.steps=60").recipe.run.steps == 60
    with pytest.raises(
        UserError, match=r"run.steps=59: the defender's newest checkpoint has taken 60; set run.steps to at least 60"
    ):
        read(run_dir.path, "run.steps=59")


def test_every_key_that_may_change_is_a_key_and_every_path_may_change() -> None:
    def keys(values: dict[str, Any], above: str = "") -> list[str]:
        found = []
        for key, value in values.items():
            found += [f"{above}{key}", *(keys(value, f"{above}{key}.") if isinstance(value, dict) else [])]
        return found

    from fnmatch import fnmatchcase

    known = [*keys(Recipe().model_dump()), "learners.attacker.sft.path", "observe.sinks.mlflow.tracking_uri"]
    for pattern in MAY_CHANGE:
        assert any(fnmatchcase(key, pattern) for key in known), pattern
    check_changes([f"{path}=x" for path in PATHS if path != "run.dir"])
