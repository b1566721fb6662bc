"""`calibrate` from the command line: the user's mistakes are one line and status 2."""

import json
import sys
from pathlib import Path

import pytest

from cluster.cli.app import main
from cluster.run.card.write import write_cards
from tests.paths import DATA, RECIPES
from tests.unit.cluster.run.card.test_write import run_of

SANDBOX = str(RECIPES / "sandbox.yaml")
GOOD = {"criterion": "compliance", "category": "benign", "query": "how?", "responses": ["so", "no"], "label": "A"}


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["cluster", "calibrate", *args])
    with pytest.raises(SystemExit) as e:
        main()
    out = capsys.readouterr()
    return int(e.value.code or 0), out.out, out.err


@pytest.mark.parametrize(
    ("lines", "args", "message"),
    [
        ([GOOD | {"winner": "A"}], [], 'line 1: unknown field "winner"; known fields: criterion'),
        ([GOOD, GOOD | {"label": 3}], [], '1 of 2 lines are no labels: line 2: label 3 of two responses; write "A"'),
        (["nonsense"], [], "line 1: no JSON"),
        ([], [], "has no label in it"),
        ([GOOD], ["--set", "judge.verdcts=2"], "did you mean judge.verdicts?"),
        ([GOOD], ["--out", "/nonexistent"], "--out: /nonexistent is no folder; make it first"),
        ([GOOD], ["--json", "/nonexistent/out.json"], "--json: /nonexistent/out.json is no file in an existing folder"),
        ([GOOD], ["--set", "judge.kind=lm", "--set", "judge.model=/nonexistent"], "judge.model: /nonexistent is not a folder"),
        (
            [GOOD],
            ["--set=judge.kind=api", "--set=judge.workers=1", "--set=judge.api.base_url=http://127.0.0.1:9/v1",
             "--set=judge.api.model=m", "--set=judge.api.key_env=ADVGAME_NO_SUCH_KEY"],
            "ADVGAME_NO_SUCH_KEY",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    lines: list[object],
    args: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ADVGAME_NO_SUCH_KEY", raising=False)
    file = tmp_path / "labels.jsonl"
    file.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    status, _, error = run(capsys, monkeypatch, SANDBOX, "--labels", str(file), *args)
    assert status == 2 and message in error
    assert error.startswith("advgame: ") and error.count("\n") == 1 and "Traceback" not in error


def test_a_report_is_status_0_also_where_the_judge_knows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps(GOOD) + "\n")
    status, printed, _ = run(capsys, monkeypatch, SANDBOX, "--labels", str(file), "--json", str(tmp_path / "out.json"))
    assert status == 0 and "2 verdicts failed: query is not of the sandbox's world" in printed
    assert json.loads((tmp_path / "out.json").read_text())["rows"][-1]["judged"] == 0


def test_after_a_run_its_model_cards_say_how_well_its_judge_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = run_of(tmp_path, "attacker", "defender", judge={"kind": "match"})
    write_cards(run_dir)
    cards = [run_dir.export(player) / "README.md" for player in ("attacker", "defender")]
    assert all("was not measured for this run" in card.read_text() for card in cards)
    labels = str(DATA / "judge_labels.jsonl")
    status, printed, _ = run(capsys, monkeypatch, str(run_dir.path), "--labels", labels)
    assert status == 0 and printed.count("the model card of ") == 2
    for card in cards:
        assert "[judge_card.md](judge_card.md)" in card.read_text()
        assert card.with_name("judge_card.md").read_text() == run_dir.judge_card.read_text()
