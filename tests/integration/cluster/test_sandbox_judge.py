"""The sandbox's judge as trained: it agrees with the rule judge, on questions of every kind and on what real players write."""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.inputs.recipe_file import load_recipe
from cluster.run.judge_engine import JudgeEngine, engine_builder
from cluster.sandbox import SandboxPaths, ensure_sandbox, ensure_sandbox_judge
from cluster.sandbox.judge_samples import Form, draw_question
from cluster.sandbox.rule_judge import RuleJudge
from cluster.sandbox.world import find_task
from judge.lm import LMJudge
from judge.rubric import load_rubrics
from judge.verdicts import parse
from protocol.formats import FORMATS
from protocol.prompts import attacker_messages, defender_messages
from protocol.seeds import read_seeds
from protocol.types import JudgeRequest, Message, Verdict
from tests.paths import RECIPES

RECIPE = RECIPES / "sandbox-lm-judge.yaml"
BAR = 0.95
RULES = RuleJudge()
RUBRICS = load_rubrics("sandbox")

# Not in CI: the first test may have to train the judge.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder() -> Path:
    return ensure_sandbox_judge()


@pytest.fixture(scope="module")
def players() -> SandboxPaths:
    return ensure_sandbox()


def generate(folder: Path, chats: Sequence[Sequence[Message]], **options: Any) -> list[str]:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    texts: list[str] = []
    for at in range(0, len(chats), 128):
        batch = tokenizer.apply_chat_template(
            [list(chat) for chat in chats[at : at + 128]],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        ids = model.generate(**batch, **options)
        texts += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def outcome(read: object) -> object:
    """What a verdict decides: who wins, how good a lone response is, or true or false."""
    if isinstance(read, tuple) and len(read) == 2:
        return (read[0] > read[1]) - (read[0] < read[1])
    return read


def expected(verdict: Verdict) -> object:
    return outcome(verdict.faithful if verdict.scores is None else verdict.scores)


def judged(folder: Path, requests: Sequence[JudgeRequest]) -> list[object]:
    said = generate(folder, [RUBRICS.render(r)[0] for r in requests], do_sample=False, max_new_tokens=40)
    return [outcome(parse(t, r.criterion, len(r.responses))) for t, r in zip(said, requests, strict=True)]


def agreement(requests: Sequence[JudgeRequest], found: Sequence[object]) -> float:
    return sum(o == expected(RULES.verdict(r)) for r, o in zip(requests, found, strict=True)) / len(requests)


@pytest.mark.parametrize("form", ["pairwise", "pointwise", "faithfulness"])
def test_it_agrees_with_the_rule_judge_on_held_out_objects(folder: Path, form: Form) -> None:
    rng = random.Random("held out")
    requests = [draw_question(rng, form, heldout=True) for _ in range(600)]
    found = judged(folder, requests)
    by_criterion = defaultdict(list)
    for request, one in zip(requests, found, strict=True):
        by_criterion[request.criterion].append(one == expected(RULES.verdict(request)))
    print(form, {criterion: f"{sum(hits) / len(hits):.3f}" for criterion, hits in by_criterion.items()})
    assert agreement(requests, found) >= BAR


def test_it_agrees_on_what_the_base_players_write(folder: Path, players: SandboxPaths) -> None:
    seeds = read_seeds(players.heldout_seeds, "seeds.heldout")[0] * 2
    drawn = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 48}
    asked = [attacker_messages(seed, "sandbox", "think_prompt") for seed in seeds]
    attacks = [FORMATS["think_prompt"].visible(text) for text in generate(players.attacker, asked, **drawn)]
    valid = [(s, a) for s, a in zip(seeds, attacks, strict=True) if a is not None]
    faith = [JudgeRequest("faithfulness", s.category, s.text, (a,)) for s, a in valid]
    assert agreement(faith, judged(folder, faith)) >= BAR

    kept = [(s, a) for s, a in valid if find_task(a) is not None]
    chats = [defender_messages(a, "sandbox", "plain") for _, a in kept]
    first, second = (generate(players.defender, chats, **{**drawn, "temperature": t}) for t in (1.0, 0.6))
    pairs = []
    for (seed, attack), one, other in zip(kept, first, second, strict=True):
        shown = (one.strip(), other.strip())
        criterion = "deflection" if seed.category == "harmful" else "compliance"
        pairs += [JudgeRequest(criterion, seed.category, attack, texts) for texts in (shown, shown[::-1])]
        criterion = "compliance" if seed.category == "harmful" else "refusal"
        pairs.append(JudgeRequest(criterion, seed.category, attack, shown))
    assert agreement(pairs, judged(folder, pairs)) >= BAR


async def test_it_agrees_as_the_recipe_samples_it_on_vllm(folder: Path) -> None:
    recipe = load_recipe(RECIPE)
    rng = random.Random("vllm")
    requests = [draw_question(rng, heldout=True) for _ in range(300)]
    engine = await engine_builder(recipe.judge, str(folder))()
    assert isinstance(engine, JudgeEngine)
    try:
        judge = LMJudge(engine, RUBRICS, recipe.judge, "lm:sandbox")
        verdicts = await judge.judge(requests)
    finally:
        engine.close()
    assert not judge.unread
    assert agreement(requests, [expected(v) for v in verdicts]) >= 0.9
