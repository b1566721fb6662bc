"""A whole sandbox run whose judge is a language model on vLLM, measured against the exact judge of that world."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.sandbox import ensure_sandbox, ensure_sandbox_judge
from cluster.sandbox.rule_judge import RuleJudge
from protocol.formats import FORMATS
from protocol.game import ATTACKER_CRITERION, DEFENDER_CRITERION
from protocol.seeds import read_seeds
from protocol.types import Criterion, JudgeRequest
from tests.e2e.runs import Program, check_books, rows_of, summary_of

AGREES = 0.9  # with the rule judge, of the pairs and of the attacks judged in the run
LEFT = 0.05  # attack success on the held-out seeds after training, at most; the demo's bar
FROM = 0.45  # and before, at least


def winner(scores: tuple[float, ...]) -> int:
    return (scores[0] > scores[1]) - (scores[0] < scores[1])


def agreement(rows: list[dict[str, Any]], seeds: dict[str, str]) -> dict[str, tuple[int, int]]:
    """(agreed, judged) of pairs, by who won or tied in the first order asked, and of attacks, by faithfulness."""
    rules = RuleJudge()
    attacks = {
        (r["game_id"], k): FORMATS["think_prompt"].visible(item["text"])
        for r in rows
        if r["player"] == "attacker"
        for k, item in enumerate(r["items"])
    }
    best: dict[tuple[int, int], str] = {}
    pairs, faith, unknown = [0, 0], [0, 0], [0]

    def compare(row: dict[str, Any], criterion: Criterion, query: str, texts: dict[int, str]) -> None:
        for p in row["preferences"]:
            for mine, shown in (
                ((p["forward_i"], p["forward_j"]), (p["i"], p["j"])),
                ((p["swapped_i"], p["swapped_j"]), (p["i"], p["j"])),
            ):
                if mine[0] is None:
                    continue
                asked = JudgeRequest(criterion, row["category"], query, (texts[shown[0]], texts[shown[1]]))
                scores = rules.verdict(asked).scores
                if scores is None:  # an attack that it calls unfaithful and the model let pass: counted there
                    unknown[0] += 1
                    continue
                pairs[0] += winner(mine) == winner(scores)
                pairs[1] += 1

    for row in [r for r in rows if r["player"] == "defender"]:
        place = int(row["row_id"].rsplit("/", 1)[1])
        query = attacks[row["game_id"], place]
        assert query is not None
        compare(
            row, DEFENDER_CRITERION[row["category"]], query, {k: i["text"].strip() for k, i in enumerate(row["items"])}
        )
        ok = [i for i in row["items"] if i["state"] == "ok"]
        if ok:
            best[row["game_id"], place] = max(ok, key=lambda i: i["reward"])["text"].strip()
    for row in [r for r in rows if r["player"] == "attacker"]:
        seed = seeds[row["seed_id"]]
        through = {k: best.get((row["game_id"], k), "") for k in range(len(row["items"]))}
        compare(row, ATTACKER_CRITERION[row["category"]], seed, through)
        for k, item in enumerate(row["items"]):
            text = attacks[row["game_id"], k]
            if text is not None and item["state"] != "judge_failed":
                said = rules.verdict(JudgeRequest("faithfulness", row["category"], seed, (text,))).faithful
                faith[0] += (item["state"] != "unfaithful") == said
                faith[1] += 1
    assert unknown[0] <= 0.05 * pairs[1]
    return {"pairs": (pairs[0], pairs[1]), "faithfulness": (faith[0], faith[1])}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_judged_by_a_language_model_learns_and_agrees_with_the_exact_judge(tmp_path: Path) -> None:
    sandbox = ensure_sandbox()
    ensure_sandbox_judge()
    recipe = "deploy/recipes/sandbox-lm-judge.yaml"
    program = Program("train", recipe, f"--set=run.dir={tmp_path}", "--set=run.name=lm")
    try:
        assert program.end(1200) == 0, program.output[-3000:]
    finally:
        program.clean_up()
    run = tmp_path / "lm"
    summary = summary_of(run)
    check_books(summary)
    seeds = {seed.id: seed.text for seed in read_seeds(sandbox.train_seeds, "seeds")[0]}
    agreed = agreement(rows_of(run), seeds)
    print(
        json.dumps(
            {"agreement": agreed, "heldout": summary["heldout"], "judge": summary["judge"], "wall_s": summary["wall_s"]}
        )
    )
    assert summary["judge"]["failed"] < 0.02 * summary["judge"]["verdicts"]
    for name, (right, judged) in agreed.items():
        assert judged > 500, name
        assert right / judged >= AGREES, name
    assert summary["heldout"]["start"]["attack_success"] >= FROM
    assert summary["heldout"]["end"]["attack_success"] <= LEFT
