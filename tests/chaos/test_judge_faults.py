"""A judge that is down, hangs or talks nonsense for a while, in a whole sandbox run: nothing is invented, and the run goes on.

The judge is the API judge against a FAKE endpoint that answers with the rule judge's scores, so every reward that the run
stored can be computed again, exactly, from the texts beside it.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.sandbox import ensure_sandbox
from cluster.sandbox.rule_judge import RuleJudge
from cluster.sandbox.world import train_seeds
from protocol.formats import FORMATS
from protocol.game import ATTACKER_CRITERION, DEFENDER_CRITERION
from protocol.types import Criterion, JudgeRequest
from tests.e2e.runs import Program, check_books, rows_of, settings, summary_of
from tests.openai_server import OpenAIServer, world_answer

FAULT_S = float(os.environ.get("ADVGAME_FAULT_S", "60"))
NONSENSE = "<score_A> eleven </score_A> <score_B> 4 </score_B> <score> 12 </score> <faithful> perhaps </faithful>"
RECIPE = "deploy/recipes/sandbox.yaml"
JUDGE = {
    "judge.kind": "api",
    "judge.rubrics": "sandbox",
    "judge.workers": 1,
    "judge.deadline_s": 8,
    "judge.attempts": 2,
    "judge.api.model": "fake",
    "judge.api.key_env": '""',
    "judge.api.timeout_s": 2,
    "judge.api.retries": 1,
    "judge.api.concurrency": 64,
    "judge.sampling.max_new_tokens": 64,
    "judge.cache_entries": 0,  # a remembered verdict would hide the fault
    "judge.alarm.window": 100,
    "judge.alarm.pause_s": 5,
    "run.steps": 400,  # more than will be taken: the test ends the run
    "heldout.samples": 1,
}


def score_of(criterion: Criterion, row: dict[str, Any], query: str, text: str) -> float:
    """What the rule judge gives a text; it does not depend on what the text is compared with."""
    scores = RuleJudge().verdict(JudgeRequest(criterion, row["category"], query, (text.strip(),))).scores
    assert scores is not None
    return scores[0]


def check_rewards(rows: list[dict[str, Any]]) -> int:
    """Every reward is the rule judge's score of a text, a penalty, or missing. Gives the items excluded for the judge."""
    attackers = {row["game_id"]: row for row in rows if row["player"] == "attacker"}
    best: dict[tuple[int, int], str] = {}  # the response that an attack is scored through
    failed = checked = 0
    for row in rows:
        for item in row["items"]:
            assert (item["reward"] is None) == (item["state"] in ("judge_failed", "no_valid_response"))
            assert item["reward"] != -1 or item["state"] in ("malformed", "too_long", "unfaithful")
            failed += item["state"] == "judge_failed"
        place = int(row["row_id"].rsplit("/", 1)[1])
        ok = [item for item in row["items"] if item["state"] == "ok"]
        if row["player"] == "defender" and ok:
            attack = FORMATS["think_prompt"].visible(attackers[row["game_id"]]["items"][place]["text"])
            assert attack is not None
            for item in ok:
                assert item["reward"] == score_of(DEFENDER_CRITERION[row["category"]], row, attack, item["text"])
                checked += 1
            best[row["game_id"], place] = max(ok, key=lambda item: item["reward"])["text"]
    seeds = {seed.id: seed for seed in [*train_seeds()]}
    for game_id, row in attackers.items():
        for place, item in enumerate(row["items"]):
            if item["state"] == "ok":
                query = next(s.text for s in seeds.values() if s.text in prompt_of(item))
                through = best[game_id, place]
                assert item["reward"] == score_of(ATTACKER_CRITERION[row["category"]], row, query, through)
                checked += 1
    assert checked > 0
    return failed


def prompt_of(item: dict[str, Any]) -> str:
    """The attack prompt. It is faithful, so that it contains its seed."""
    text = FORMATS["think_prompt"].visible(item["text"])
    assert text is not None
    return text


def taught(run: Path) -> int:
    """Steps of the Defender that had something to learn from."""
    import pyarrow.parquet as pq

    if not (run / "metrics.parquet").is_file():
        return 0
    rows = pq.read_table(run / "metrics.parquet", columns=["player", "items"]).to_pylist()
    return sum(1 for row in rows if row["player"] == "defender" and row["items"])


def wait_for_steps(program: Program, run: Path, steps: int, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while taught(run) < steps:
        assert program.process.poll() is None, program.output[-3000:]
        assert time.monotonic() < deadline, f"{taught(run)} of {steps} steps after {limit_s} s"
        time.sleep(1)


def kill_judges(program: Program) -> int:
    killed = 0
    for process in program.processes():
        with contextlib.suppress(psutil.Error):
            if "JudgeWorker" in " ".join(process.cmdline()) or "judge-0" in " ".join(process.cmdline()):
                process.kill()
                killed += 1
    return killed


@pytest.mark.timeout(1500)
def test_killed_hung_and_nonsense_judges(tmp_path: Path) -> None:
    ensure_sandbox()
    run = tmp_path / "faults"
    with OpenAIServer(world_answer) as server:
        program = Program("train", RECIPE, *settings(tmp_path, "faults", **JUDGE, **{"judge.api.base_url": server.url}))
        try:
            program.wait_for("playing", 240)
            wait_for_steps(program, run, 3, 240)
            for fault in ("hang", "nonsense", "garbage", "refuse", "killed"):
                began = time.monotonic()
                if fault == "nonsense":
                    server.answer = lambda _: NONSENSE
                elif fault != "killed":
                    server.fault = fault  # type: ignore[assignment]
                kills = 0
                while time.monotonic() - began < FAULT_S:
                    assert program.process.poll() is None, program.output[-3000:]
                    kills += kill_judges(program) if fault == "killed" else 0
                    time.sleep(3)
                assert fault != "killed" or kills > 0
                server.fault, server.answer = "ok", world_answer
                time.sleep(16)  # the metrics file is written every 15 s: what it then adds was learned after the fault
                wait_for_steps(program, run, taught(run) + 3, 180)  # it goes on
            program.interrupt()
            assert program.end(120) == 130, program.output[-3000:]
        finally:
            program.clean_up()
    summary = summary_of(run)
    check_books(summary)
    failed = check_rewards(rows_of(run))
    assert failed > 0 and summary["judge"]["failed"] > 0  # the faults were real
    assert summary["alarm"]["raised"] >= 2 and summary["alarm"]["paused_s"] > 0
    print(json.dumps({k: summary[k] for k in ("judge", "alarm", "steps")} | {"excluded_items": failed}))
