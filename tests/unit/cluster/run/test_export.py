"""`export RUN`: which checkpoint becomes a folder, of which player, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from cluster.inputs.recipe_file import dump_recipe
from cluster.run import export
from cluster.run.export import export_checkpoints
from cluster.rundir import RunDir
from learners.storage import checkpoints, inventory
from protocol.errors import UserError
from protocol.recipe import LearnerConfig, parse_recipe
from protocol.roles import PLAYERS


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run that was cut off: checkpoints of both players at 50 and 100, no export."""
    models = {p: tmp_path / f"model-{p}" for p in PLAYERS}
    for folder in models.values():
        folder.mkdir()
        (folder / "config.json").write_text('{"dtype": "float32"}')
    recipe = {"models": {p: {"path": str(folder)} for p, folder in models.items()}, "run": {"name": "a"}}
    run_dir = RunDir(tmp_path / "a")
    run_dir.path.mkdir()
    run_dir.recipe.write_text(dump_recipe(parse_recipe(recipe)))
    for player in PLAYERS:
        for step in (50, 100):
            folder = run_dir.checkpoints(player) / f"step-{step}"
            folder.mkdir(parents=True)
            (folder / "rank-0.pt").write_bytes(b"weights")
            files = inventory.sync_and_describe(folder, [folder / "rank-0.pt"])
            checkpoints.write_meta(folder, step=step, version=step, ranks=1, config=LearnerConfig(), files=files)
    monkeypatch.setattr(export, "check_model_folder", lambda *_: None)
    return run_dir


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(export, "consolidate", lambda *given: calls.append(given))
    return calls


def test_without_options_each_players_newest_checkpoint_is_exported(run: RunDir, made: list[tuple[Any, ...]]) -> None:
    folders = export_checkpoints(run.path, None, None, None, (), lambda _: None)
    assert folders == [run.path / "export" / f"{p}-step-100" for p in PLAYERS]
    base = run.path.parent / "model-attacker"
    assert made[0] == (run.checkpoints("attacker") / "step-100", base, folders[0], "float32", "ema")


def test_one_step_of_one_player_goes_where_it_is_wanted(run: RunDir, made: list[tuple[Any, ...]]) -> None:
    moved = (run.path.parent / "model-defender").rename(run.path.parent / "moved")
    (folder,) = export_checkpoints(
        run.path, 50, "defender", run.path.parent / "out", [f"models.defender.path={moved}"], lambda _: None
    )
    assert folder == run.path.parent / "out" / "defender-step-50"
    assert [(call[0].name, call[1]) for call in made] == [("step-50", moved)]


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_exported(
    run: RunDir, made: list[tuple[Any, ...]]
) -> None:
    (run.checkpoints("defender") / "step-100" / "rank-0.pt").write_bytes(b"we")
    said: list[str] = []
    export_checkpoints(run.path, None, "defender", None, (), said.append)
    assert (
        made[0][0].name == "step-50"
        and "defender/step-100 is damaged" in said[0]
        and "step-50 takes its place" in said[0]
    )
    with pytest.raises(UserError, match=r"--step 100: .* is damaged .*; take another step"):
        export_checkpoints(run.path, 100, "defender", None, (), said.append)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ((75, "defender"), r"--step 75: the defender has no such checkpoint; it has 50, 100"),
        ((None, "attacker"), r"--player attacker: it does not learn in this run"),
    ],
)
def test_what_is_not_there_is_refused_in_words(
    given: tuple[Any, Any], why: str, run: RunDir, made: list[tuple[Any, ...]]
) -> None:
    run.recipe.write_text(
        run.recipe.read_text().replace("train: true", "train: false", 1)
    )  # the attacker's comes first
    with pytest.raises(UserError, match=why):
        export_checkpoints(run.path, *given, None, (), lambda _: None)
    with pytest.raises(UserError, match="is no run"):
        export_checkpoints(run.path.parent, *given, None, (), lambda _: None)
    assert made == []


def test_bytes_that_changed_since_are_found(run: RunDir, made: list[tuple[Any, ...]]) -> None:
    (run.checkpoints("defender") / "step-100" / "rank-0.pt").write_bytes(b"Weights")
    with pytest.raises(UserError, match="is not what was written"):
        export_checkpoints(run.path, None, "defender", None, (), lambda _: None)
    assert made == []
