"""A whole run on one card: both players' engines, a judge's, and two learners that push through `ipc`; the recipe for one GPU."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.benchmarks.shapes import SHAPES, make_model
from tests.e2e.runs import ROOT, Program, check_books, settings, summary_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: the recipe for one card was not run"),
    pytest.mark.timeout(1500),
]
STEPS = 4
ENDS = 16  # every so many-th token ends a text
# As wide and deep as the 0.5B model, with no more tokens than its tokenizer has: others would be no text.
SHAPE = replace(SHAPES["0.5B"], vocab=283)


def end_often(model: Path) -> None:
    """Random weights never stop by themselves: many tokens end a text of theirs."""
    path = model / "generation_config.json"
    value = json.loads(path.read_text()) if path.is_file() else {}
    ends = list(range(3, SHAPE.vocab, ENDS))
    path.write_text(json.dumps(value | {"eos_token_id": ends}))


def test_three_engines_and_two_learners_share_a_card(tmp_path: Path) -> None:
    seeds, model = tmp_path / "seeds.jsonl", tmp_path / "model"
    texts = [f"how do people usually {verb} a bike?" for verb in ("fix", "paint", "sell", "lock")]
    seeds.write_text(
        "".join(json.dumps({"prompt": t, "category": c}) + "\n" for c in ("benign", "harmful") for t in texts)
    )
    make_model(model, SHAPE, max_tokens=8192)
    end_often(model)
    values = {
        "seeds.train": seeds,
        "seeds.heldout": "null",
        "models.attacker.path": model,
        "models.defender.path": model,
        "run.steps": STEPS,
        # Random weights write no format: whatever they write is the attack, and every 16th token ends it. A judge held to its form
        # prefers one at random, and takes some attacks for unfaithful.
        "game.attacker_format": "plain",
        "sampling.max_new_tokens": 256,
        "generation.enforce_eager": "true",
        "judge.model": model,
        "judge.structured": "true",
        "judge.sampling.max_new_tokens": 80,
        "judge.engine.max_model_len": 8192,
        "judge.engine.enforce_eager": "true",
        "judge.engine.gpu_memory_utilization": 0.2,
    }
    program = Program("train", str(ROOT / "deploy/recipes/1-gpu.yaml"), *settings(tmp_path, "card", **values))
    try:
        assert program.end(1400) == 0, program.output
        assert not program.processes()
    finally:
        program.clean_up()
    summary = summary_of(tmp_path / "card")
    check_books(summary)
    assert summary["status"] == "finished"
    assert summary["steps"] == {"attacker": STEPS, "defender": STEPS}
    assert all(rows["learned"] > 0 for rows in summary["rows"].values()), "both players learned"
    assert summary["states"]["response"].get("ok", 0) > 0, "the Defender was asked"
    for player, pushed in summary["push"].items():
        assert pushed["count"] == STEPS, player
        assert "send" not in pushed["phases"], f"{player}: versions went through host memory, not ipc"
    logs = "".join(path.read_text() for path in (tmp_path / "card" / "logs").iterdir())
    assert not re.search("native_push|engine thrown away", logs)
    print(json.dumps({"wall_s": summary["wall_s"], "push": summary["push"]}, indent=1))
