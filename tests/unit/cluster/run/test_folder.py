"""A run's directory: named, made whole, found again, kept from a second driver."""

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from cluster.inputs.recipe_file import load_recipe
from cluster.inputs.run_dir import check_free, find_run, name_run, run_dir_of
from cluster.replay.store.journal import Journal
from cluster.run.folder import lock_run, make_run, pushes_first
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from tests.unit.cluster.plan.plans import plan_of


def named(tmp_path: Path, name: str | None = "a") -> Recipe:
    return parse_recipe({"run": {"dir": str(tmp_path), "name": name}})


def made(tmp_path: Path, recipe: Recipe | None = None) -> RunDir:
    """The directory of a run whose inputs nobody looked for."""
    recipe = recipe or named(tmp_path)
    run_dir = run_dir_of(recipe)
    make_run(plan_of(recipe, run_dir.path))
    return run_dir


def test_a_run_directory_appears_whole_and_its_name_is_taken_then(tmp_path: Path) -> None:
    run_dir = made(tmp_path)
    assert {p.name for p in run_dir.path.iterdir()} == {
        "logs",
        "checkpoints",
        "replay",
        "recipe.yaml",
        "inputs",
        "quarantine.jsonl",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(UserError, match=r"run\.name: a exists .*--resume"):
        check_free(run_dir)


def test_a_run_without_a_name_gets_the_recipes_and_the_time(tmp_path: Path) -> None:
    recipe = name_run(named(tmp_path, None), Path("x/sandbox.yaml"))
    assert run_dir_of(recipe).path.name.startswith("sandbox-2")


def test_resuming_what_is_no_run_or_is_finished(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        find_run(tmp_path)
    run_dir = made(tmp_path)
    assert find_run(run_dir.path) == run_dir
    run_dir.summary.write_text(json.dumps({"status": "finished"}))
    with pytest.raises(UserError, match="is finished"):
        find_run(run_dir.path)


def test_a_run_is_kept_from_a_second_driver(tmp_path: Path) -> None:
    run_dir = made(tmp_path)
    with lock_run(run_dir), pytest.raises(UserError, match="another driver"), lock_run(run_dir):
        pass
    with lock_run(run_dir):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_no_other_driver_is_blamed(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    run_dir = made(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    for take in (lambda: lock_run(run_dir).__enter__(), lambda: Journal(run_dir.replay / "journal.jsonl", 0.0)):
        with pytest.raises(
            UserError, match=rf"its file system gives no lock \({errno.errorcode[code]}.*mount it"
        ) as told:
            take()
        assert "another" not in str(told.value).partition("mount it")[0] and "\n" not in str(told.value)


def test_who_pushes_first_when_a_run_is_resumed_or_begins_with_a_warm_start(tmp_path: Path) -> None:
    assert pushes_first(RunDir(tmp_path), {"attacker": 0, "defender": 0}, ()) == set()
    assert pushes_first(RunDir(tmp_path), {"attacker": 0, "defender": 0}, ["attacker"]) == {"attacker"}
    (tmp_path / "checkpoints" / "attacker" / "step-5").mkdir(parents=True)
    (tmp_path / "checkpoints" / "defender" / "step-5.tmp").mkdir(parents=True)
    assert pushes_first(RunDir(tmp_path), {"attacker": 0, "defender": 0}, ()) == {"attacker"}
    assert pushes_first(RunDir(tmp_path), {"attacker": 0, "defender": 2}, ()) == {"attacker", "defender"}


def test_a_torn_summary_does_not_keep_a_run_from_being_resumed(tmp_path: Path) -> None:
    run_dir = made(tmp_path)
    run_dir.summary.write_text('{"status": "fin')
    assert find_run(run_dir.path) == run_dir and run_dir.read_summary() == {}


def test_a_recipe_file_of_any_name_gives_a_legal_run_name(tmp_path: Path) -> None:
    recipe = name_run(named(tmp_path, None), Path("my recipe (2).yaml"))
    assert load_recipe(made(tmp_path, recipe).recipe).run.name == recipe.run.name
