"""The Judge Card: what it says, where it lies, and that it says nothing that was not measured."""

import json
import re
from pathlib import Path

import pytest

import cluster.measure.calibration as module
from cluster.inputs.find import FoundJudge
from cluster.inputs.labels import Label
from cluster.measure.agreement import report
from cluster.measure.calibration import calibrate
from cluster.measure.card import NO_RUBRIC, NOT_ASKED, Card, Tokens, make_card
from cluster.measure.card_text import render, say_share
from cluster.measure.intervals import wilson
from cluster.measure.outcomes import Outcome
from cluster.measure.rewording import Changes
from cluster.run.judge_engine import build_judge_engine
from cluster.rundir import RunDir
from judge.stats import ApiUsage, EngineUsage
from protocol.errors import UserError
from protocol.recipe import JudgeConfig
from protocol.types import Verdict
from tests.paths import DATA
from tests.unit.cluster.measure.test_rewording import Engine

LABELS = str(DATA / "judge_labels.jsonl")


def scored(label: float, score: float | None) -> Outcome:
    verdict = (
        Verdict("j", "s/refusal@1", failure="no score")
        if score is None
        else Verdict("j", "s/refusal@1", scores=(score,))
    )
    return Outcome(Label("refusal", "benign", "q", ("r",), label), (verdict,))


def make(config: JudgeConfig, changes: tuple[Changes, ...] = (), why: str | None = None) -> Card:
    # High labels: right, right, wrong, unread. Low labels: right, wrong.
    outcomes = [scored(9, 8), scored(9, 5), scored(5, 4), scored(8, None), scored(0, 1), scored(4, 6)]
    usage = EngineUsage(6, 60, 600)
    return make_card(
        config, "lm:m@d", {"vllm": "0.1"}, "l.jsonl", 9, "2026-11-27", outcomes, report(outcomes), changes, why, usage
    )


def test_sensitivity_and_specificity_are_those_of_the_answers_given() -> None:
    card = make(JudgeConfig(kind="lm", model="/home/someone/m"))
    row = card.rows[0]
    assert (row.sensitivity, row.specificity) == (wilson(2, 3), wilson(1, 2))
    assert (card.rows[-1].sensitivity, card.rows[-1].specificity) == (None, None), "not over several questions"
    assert card.failures == {"no score": 1} and card.verdicts == 6
    assert (card.model, card.rubrics, card.tokens) == ("m", ("s/refusal@1",), Tokens(600, 60))


def test_pairs_have_neither() -> None:
    verdicts = tuple(Verdict("j", "r", scores=s) for s in ((8.0, 2.0), (2.0, 8.0)))
    pair = Outcome(Label("refusal", "benign", "q", ("a", "b"), "A"), verdicts)
    assert [(r.sensitivity, r.specificity) for r in report([pair])] == [(None, None)] * 2


def test_the_page_says_what_the_json_holds_and_no_path() -> None:
    changes = (Changes("standard.reworded-1", 5, 1, wilson(1, 5)),)
    card = make(JudgeConfig(kind="lm", model="/home/someone/m"), changes)
    page, value = render(card), json.loads(json.dumps(card.as_dict(), allow_nan=False))
    assert "| refusal | pointwise | 6 | 5 | 66.7 % (20.8 to 93.9) | 50.0 % (9.5 to 90.5) |" in page
    assert "| standard.reworded-1 | 5 | 20.0 % (3.6 to 62.4) | 1 |" in page
    assert "Of 6 verdicts 16.7 %" in page and "- no score: 1" in page and "600 read, 60 written" in page
    assert "/home" not in page + json.dumps(value)
    assert value["changes"][0]["changed"]["value"] == 0.2 and value["tokens"] == {
        "read": 600,
        "written": 60,
        "cost": None,
    }
    assert value["rows"][0]["sensitivity"]["value"] == pytest.approx(2 / 3)
    for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1, "every line has as many cells"


def test_what_was_not_measured_is_a_dash_or_a_reason() -> None:
    page = render(make(JudgeConfig(kind="match"), (), NO_RUBRIC["match"]))
    assert NO_RUBRIC["match"] in page and "swapped: - of the pairs" in page and "easy to fool" in page
    assert say_share(None) == "-"
    assert Tokens.of(ApiUsage(requests=1, tokens_in=7, tokens_out=3, cost=0.5)) == Tokens(7, 3, 0.5)
    assert Tokens.of(None) is None


def write_run(folder: Path, text: str) -> RunDir:
    run_dir = RunDir(folder / "run")
    run_dir.path.mkdir()
    run_dir.recipe.write_text(text)
    run_dir.summary.write_text("{}")
    return run_dir


def test_the_card_lies_beside_a_runs_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path, "judge: {kind: match}\n")
    calibrate(run_dir.path, [], LABELS, None, None, build_judge_engine)
    page = run_dir.judge_card.read_text()
    assert "# Judge Card: `match-1`" in page and "`judge_labels.jsonl`, 82 of 82" in page
    assert "0.0 % (0.0 to 16.1) of the pairs get another winner" in page and NO_RUBRIC["match"] in page
    assert str(tmp_path) not in page + (run_dir.path / "judge_card.json").read_text()
    value = json.loads((run_dir.path / "judge_card.json").read_text())
    assert value["judge"] == "match-1" and value["tokens"] is None and value["rows"][-1]["n"] == 82
    assert sorted(p.name for p in run_dir.path.iterdir()) == [
        "judge_card.json",
        "judge_card.md",
        "recipe.yaml",
        "summary.json",
    ]
    assert "the Judge Card is" in capsys.readouterr().out


def test_without_a_run_the_card_lies_where_it_is_wanted_or_nowhere(tmp_path: Path) -> None:
    recipe, out = tmp_path / "r.yaml", tmp_path / "cards"
    recipe.write_text("judge: {kind: match}\n")
    calibrate(recipe, [], LABELS, None, 5, build_judge_engine)
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]
    with pytest.raises(UserError, match=r"--out: .*cards is no folder; make it first"):
        calibrate(recipe, [], LABELS, None, 5, build_judge_engine, out)
    out.mkdir()
    calibrate(recipe, [], LABELS, None, 5, build_judge_engine, out)
    assert sorted(p.name for p in out.iterdir()) == ["judge_card.json", "judge_card.md"]


def test_the_model_cards_are_told_of_a_card_beside_the_summary_and_of_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = write_run(tmp_path, "judge: {kind: match}\n")
    told: list[bool] = []

    def write(run: RunDir) -> list[Path]:
        told.append(run.judge_card.is_file())
        return [run.export("defender")]

    def run(recipe: Path, out: Path | None = None) -> None:
        calibrate(recipe, [], LABELS, None, 5, build_judge_engine, out, True, write)

    run(run_dir.path)
    assert told == [True] and f"the model card of {run_dir.export('defender')} " in capsys.readouterr().out
    (out := tmp_path / "out").mkdir()
    run(run_dir.path, out)
    run(run_dir.recipe, out)
    run(run_dir.recipe)
    run_dir.summary.unlink()
    run(run_dir.path)
    assert told == [True], "a run that has not ended writes its cards when it does"


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyError("inputs"), UserError("recipe: no YAML")])
def test_model_cards_that_cannot_be_written_are_one_line_and_the_judges_is_there(
    error: Exception, tmp_path: Path
) -> None:
    run_dir = write_run(tmp_path, "judge: {kind: match}\n")

    def write(run: RunDir) -> list[Path]:
        raise error

    with pytest.raises(UserError, match=r"run: the Judge Card is there, .* of the run are as they were") as refused:
        calibrate(run_dir.path, [], LABELS, None, 5, build_judge_engine, None, True, write)
    assert "\n" not in str(refused.value) and run_dir.judge_card.is_file()


def test_the_home_folder_is_found_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `--out=~/cards`, where the shell leaves it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "r.yaml").write_text("judge: {kind: match}\n")
    (tmp_path / "cards").mkdir()
    calibrate(Path("~/r.yaml"), [], LABELS, Path("~/report.json"), 5, build_judge_engine, Path("~/cards"))
    assert (tmp_path / "report.json").is_file() and (tmp_path / "cards" / "judge_card.md").is_file()
    run_dir = write_run(tmp_path, "judge: {kind: match}\n")
    calibrate(Path("~/run"), [], LABELS, None, 5, build_judge_engine)
    assert run_dir.judge_card.is_file()
    with pytest.raises(UserError, match=r"^~nobody-here/r\.yaml: ~nobody-here is no user's home here"):
        calibrate(Path("~nobody-here/r.yaml"), [], LABELS, None, 5, build_judge_engine)


def test_a_run_gets_no_card_of_another_judge(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, "judge: {kind: match}\n")
    with pytest.raises(UserError, match="--set: changes the judge of the run"):
        calibrate(run_dir.path, ["judge.kind=rules"], "sandbox", None, 5, build_judge_engine)
    assert not run_dir.judge_card.exists()
    (out := tmp_path / "out").mkdir()
    calibrate(run_dir.path, ["judge.kind=rules"], "sandbox", None, 5, build_judge_engine, out)
    assert "`rules-1`" in (out / "judge_card.md").read_text() and not run_dir.judge_card.exists()
    calibrate(run_dir.path, ["judge.workers=1"], LABELS, None, 5, build_judge_engine)
    assert run_dir.judge_card.exists()


def test_a_judge_that_reads_rubrics_is_reworded_unless_it_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fake engine knows the standard wording only."""

    async def build(*args: object) -> Engine:
        return Engine()

    monkeypatch.setattr(module, "find_judge", lambda recipe, say: FoundJudge("/models/m", "0a1b"))
    labels, recipe = tmp_path / "l.jsonl", tmp_path / "r.yaml"
    labels.write_text(
        '{"criterion": "refusal", "category": "benign", "query": "q", "responses": ["no"], "label": 9}\n' * 3
    )
    recipe.write_text("judge: {kind: lm, model: /models/m}\n")
    calibrate(recipe, [], str(labels), None, None, build, tmp_path)
    page = (tmp_path / "judge_card.md").read_text()
    assert "| the same words again | 3 | 0.0 % (0.0 to 56.1) | 0 |" in page
    assert "| standard.reworded-3 | 3 | 100.0 % (43.9 to 100.0) | 0 |" in page
    assert "| any of the rewordings | 3 | 100.0 % (43.9 to 100.0) | 0 |" in page
    assert "`lm:m@0a1b`" in page and "1500 read, 75 written" in page
    assert "100.0 % (43.9 to 100.0) of the answers change: standard.reworded-1" in capsys.readouterr().out
    calibrate(recipe, [], str(labels), None, None, build, tmp_path, reword=False)
    page = (tmp_path / "judge_card.md").read_text()
    assert NOT_ASKED in page and "300 read, 15 written" in page and "reworded-" not in page
