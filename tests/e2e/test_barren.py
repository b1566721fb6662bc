"""A run that teaches nothing says so: random weights, whose every attack ends in no format."""

import re
from pathlib import Path

import pytest

from cluster.inputs.random_model import make_random_model
from tests.e2e.runs import Program, check_books, rows_of, summary_of
from tests.e2e.test_real_input import TEXTS, write_seeds

RECIPE = "deploy/recipes/random-16m.yaml"


# Unjudged, as the recipe is; and with all judges asked, so that rows are conceivable. The rule judge knows the sandbox only.
UNJUDGED: dict[str, object] = {}
JUDGED = {"seeds.train": "sandbox", "judge.kind": "rules"} | dict.fromkeys(
    ["game.faithfulness", "game.attacker_judge", "game.defender_judge"], "true"
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "more", [pytest.param(UNJUDGED, id="unjudged", marks=pytest.mark.slow), pytest.param(JUDGED, id="judged")]
)
def test_a_run_that_teaches_nothing_fails_with_the_reason_and_can_be_resumed(
    more: dict[str, object], tmp_path: Path
) -> None:
    seeds, model, run = write_seeds(tmp_path / "seeds.jsonl"), tmp_path / "model", tmp_path / "barren"
    make_random_model(model, TEXTS, seed=0)
    values = {
        "run.dir": tmp_path,
        "run.name": "barren",
        "run.steps": 8,
        "run.barren_steps": 5,
        "seeds.train": seeds,
        "models.attacker.path": model,
        "models.defender.path": model,
        "sampling.max_new_tokens": 4,
        "game.in_flight": 4,
    } | {f"learners.{p}.{k}": v for p in ("attacker", "defender") for k, v in (("batch_games", 2), ("ranks", 1))}
    program = Program("train", RECIPE, *(f"--set={key}={value}" for key, value in (values | more).items()))
    try:
        assert program.end(400) == 1, program.output
        assert not program.processes()
    finally:
        program.clean_up()

    summary = summary_of(run)
    check_books(summary)
    assert summary["status"] == "failed" and summary["export"] == {"attacker": None, "defender": None}
    assert all(rows["learned"] == 0 for rows in summary["rows"].values())
    assert max(summary["steps"].values()) >= 5, "every window was full"
    assert "had no row to learn from in 5 steps in a row (run.barren_steps)" in summary["note"]
    assert "sampling.max_new_tokens (now 4)" in summary["note"]
    assert f"python -m cluster replay {run} --player attacker --state too_long --limit 3 --text" in summary["note"]
    assert f"go on with: python -m cluster train --resume {run}" in program.output
    assert "trained models" not in program.output
    assert re.search(r"attacks (-|0 %) valid, - of them faithful; ties attacker (-|100 %), defender -;", program.output)

    # The outputs are there to be read, though no row could be learned; and nobody is shown them unasked.
    texts = [item["text"] for row in rows_of(run) if row["player"] == "attacker" for item in row["items"]]
    assert texts and not any(text.strip() in program.output for text in texts if len(text.strip()) > 9)
    shown = Program("replay", str(run), "--player", "attacker", "--state", "too_long", "--limit", "3", "--text")
    assert shown.end(60) == 0 and "3 of" in shown.output and "evicted: tie" in shown.output
