"""Real input on a random model, and what a machine that is too small says: both as a user would see it."""

import json
from pathlib import Path

import pytest

from cluster.sandbox import ensure_sandbox
from tests.e2e.runs import Program, check_books, settings, summary_of

TEXTS = [
    f"how do people usually {verb} {thing}?" for verb in ("fix", "paint", "sell") for thing in ("a bike", "a lamp")
]


def write_seeds(path: Path) -> Path:
    lines = [
        {"prompt": t, "category": c} for c in ("benign", "harmful") for t in (TEXTS[:4] if c == "benign" else TEXTS)
    ]
    path.write_text("\n".join([*(json.dumps(line) for line in lines), "no json", '{"prompt": "x"}']) + "\n")
    return path


@pytest.mark.slow  # over two minutes: CI has no time left
@pytest.mark.timeout(900)
def test_three_steps_on_a_random_model_end_with_every_state_counted(tmp_path: Path) -> None:
    seeds, model = write_seeds(tmp_path / "seeds.jsonl"), tmp_path / "model"
    made = Program("random-model", str(model), "--texts", str(seeds))
    assert made.end(200) == 0, made.output

    values = {"seeds.train": seeds, "models.attacker.path": model, "models.defender.path": model, "run.steps": 3}
    batches = {f"learners.{p}.batch_games": 4 for p in ("attacker", "defender")}
    small = {"sampling.max_new_tokens": 16, "game.in_flight": 8}
    program = Program(
        "train", "deploy/recipes/random-16m.yaml", *settings(tmp_path, "real", **{**values, **batches, **small})
    )
    try:
        assert program.end(600) == 0, program.output
        assert not program.processes()
    finally:
        program.clean_up()
    summary = summary_of(tmp_path / "real")
    check_books(summary)
    assert summary["status"] == "finished" and summary["steps"] == {"attacker": 3, "defender": 3}
    assert summary["barren"] == ["attacker", "defender"], "nothing to learn from, and the recipe allows it"
    assert summary["note"].startswith("nothing was learned: the attacker and the defender had no row")
    assert f"finished: {summary['note']}" in program.output and "trained models" not in program.output
    finished = summary["games"]["finished"]
    assert finished >= 12
    assert sum(summary["states"]["attack"].values()) == 2 * finished
    assert sum(summary["states"]["response"].values()) == 4 * finished
    quarantine = (tmp_path / "real" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in quarantine] == [11, 12]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("learners.defender.cpus_per_rank", 500, "CPUs at once"), ("generation.kv_cache_gib", 5000, "GiB of memory")],
)
def test_a_machine_that_is_too_small_is_refused_before_anything_is_written(
    key: str, value: int, message: str, tmp_path: Path
) -> None:
    ensure_sandbox()
    program = Program("train", "deploy/recipes/sandbox.yaml", *settings(tmp_path, "none", **{key: value}))
    try:
        assert program.end(200) == 2, program.output
        assert not program.processes()
    finally:
        program.clean_up()
    assert message in program.output and "this machine has" in program.output
    assert "Traceback" not in program.output
    assert not list(tmp_path.iterdir())
