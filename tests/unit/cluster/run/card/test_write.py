"""Which folders of a run get a card, and from what."""

import json
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from huggingface_hub import ModelCard

from cluster.exits import RunEnd
from cluster.inputs.recipe_file import dump_recipe
from cluster.measure.heldout import Measurement
from cluster.plan.drawing import plan_json
from cluster.run import train
from cluster.run.card.write import write_cards
from cluster.run.summary import RunOutcome, summarize
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.recipe import parse_recipe
from protocol.roles import PLAYERS
from tests.unit.cluster.plan.plans import plan_of

MEASURED = Measurement(0.6, 0.25, 0.75, 0.1, 160, 80, 80, 1, 2, 1, 0)


def run_of(tmp_path: Path, *folders: str, end: RunEnd = RunEnd.FINISHED, **sections: object) -> RunDir:
    """A run's directory as it is when the summary has been written. `sections`: further ones of the recipe."""
    lora = {"rank": 8}
    models = {p: {"path": str(tmp_path / "base" / p)} for p in PLAYERS}
    recipe = parse_recipe({"models": models, "learners": {"defender": {"lora": lora}}} | sections)
    run_dir = RunDir(tmp_path / "a")
    for folder in folders:
        (run_dir.path / "export" / folder).mkdir(parents=True)
    run_dir.path.mkdir(exist_ok=True)
    for p in PLAYERS:
        (tmp_path / "base" / p).mkdir(parents=True)
        (tmp_path / "base" / p / "README.md").write_text(f"---\nlicense: {p}-license\n---\n")
    plan = plan_of(recipe, run_dir.path, models={p: str(tmp_path / "base" / p) for p in PLAYERS})
    run_dir.recipe.write_text(dump_recipe(recipe))
    run_dir.plan.write_text(json.dumps(plan_json(plan)))
    run_dir.summary.write_text(json.dumps(summarize(plan, RunOutcome(end, 1.0, heldout={"start": MEASURED}))))
    return run_dir


def test_every_exported_folder_gets_its_own_card(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, "attacker", "defender", "defender-adapter")
    folders = write_cards(run_dir)
    assert [folder.name for folder in folders] == ["attacker", "defender", "defender-adapter"]
    cards = [(folder / "README.md").read_text() for folder in folders]
    data = [ModelCard(card).data.to_dict() for card in cards]
    assert [d["license"] for d in data] == ["attacker-license", "defender-license", "defender-license"]
    assert [d["library_name"] for d in data] == ["transformers", "transformers", "peft"]
    assert "# Attacker of the run a" in cards[0] and "adapter belongs to `defender`" in cards[2]
    assert all(str(tmp_path) not in card for card in cards)
    assert [path.name for path in folders[0].iterdir()] == ["README.md"]


def test_what_was_not_exported_has_no_card(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, "attacker", end=RunEnd.FAILED)
    assert [folder.name for folder in write_cards(run_dir)] == ["attacker"]
    assert "status: failed" in (run_dir.export("attacker") / "README.md").read_text()
    assert not run_dir.export("defender").exists()


def test_a_run_that_exported_nothing_needs_no_plan(tmp_path: Path) -> None:
    assert write_cards(RunDir(tmp_path / "none")) == []


def test_the_judges_card_goes_with_it_when_there_is_one(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, "defender")
    write_cards(run_dir)
    card = run_dir.export("defender") / "README.md"
    assert "was not measured" in card.read_text()
    run_dir.judge_card.write_text("# The judge\n")
    write_cards(run_dir)
    assert "[judge_card.md](judge_card.md)" in card.read_text()
    assert (run_dir.export("defender") / "judge_card.md").read_text() == "# The judge\n"


@pytest.mark.parametrize("error", [OSError(28, "full"), UserError("recipe: no YAML")])
def test_a_run_keeps_its_results_without_cards(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "write_cards", MagicMock(side_effect=error))
    run, progress = MagicMock(), MagicMock()

    async def drive() -> None:
        return

    run.drive = drive
    plan = plan_of(parse_recipe({}))
    run.summary.return_value = summarize(plan, RunOutcome(RunEnd.FINISHED, 1.0))
    assert train._drive(run, progress, RunDir(tmp_path)) == 0
    said = [call.args[0] for call in progress.say.call_args_list]
    assert any("model cards were not written" in line for line in said) and said[-1].startswith("summary: ")
