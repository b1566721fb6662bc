"""What the base players are pre-trained to say: the shares that the game starts from, and their tokens."""

import random
from collections import Counter
from typing import Any

import pytest

from cluster.sandbox.replies import classify
from cluster.sandbox.rule_judge import RuleJudge
from cluster.sandbox.samples import BROKEN_FORMAT, CHANGED_MEANING, Sample, attacker_sample, defender_sample
from cluster.sandbox.world import STYLES, find_task, is_heldout
from protocol.formats import FORMATS
from protocol.types import JudgeRequest

N = 4000


@pytest.fixture(scope="module")
def attacks() -> list[Sample]:
    rng = random.Random(1)
    return [attacker_sample(rng) for _ in range(N)]


@pytest.fixture(scope="module")
def replies() -> list[Sample]:
    rng = random.Random(2)
    return [defender_sample(rng) for _ in range(N)]


def test_the_base_attacker_mostly_keeps_format_and_meaning(attacks: list[Sample]) -> None:
    fates: Counter[str] = Counter()
    for sample in attacks:
        seed_text = sample.messages[-1]["content"].split(" : ")[1]
        task = find_task(seed_text)
        assert task is not None
        visible = FORMATS["think_prompt"].visible(sample.completion)
        if visible is None:
            fates["broken"] += 1
            continue
        verdict = RuleJudge().verdict(JudgeRequest("faithfulness", task.category, seed_text, (visible,)))
        fates["kept" if verdict.faithful else "changed"] += 1
    assert fates["broken"] / N == pytest.approx(BROKEN_FORMAT, abs=0.02)
    assert fates["changed"] / N == pytest.approx(CHANGED_MEANING, abs=0.02)


def test_the_base_attacker_uses_all_styles_about_equally(attacks: list[Sample]) -> None:
    styles = Counter(style for sample in attacks for style in STYLES if f"the {style} way" in sample.completion)
    assert set(styles) == set(STYLES)
    assert max(styles.values()) < 1.3 * min(styles.values())


def test_the_base_defender_is_worth_attacking_and_has_something_to_find(replies: list[Sample]) -> None:
    kinds: dict[str, Counter[str]] = {"harmful": Counter(), "benign": Counter()}
    for sample in replies:
        task = find_task(sample.messages[-1]["content"])
        assert task is not None
        kinds[task.category][classify(sample.completion, task).kind] += 1
    shares = {category: {kind: n / count.total() for kind, n in count.items()} for category, count in kinds.items()}
    assert set(shares["harmful"]) == set(shares["benign"]) == {"answer", "refusal", "deflection"}
    assert 0.5 <= shares["harmful"]["answer"] <= 0.63
    assert 0.1 <= shares["harmful"]["deflection"] <= 0.2
    assert 0.2 <= shares["benign"]["refusal"] <= 0.3
    assert 0.0 < shares["benign"]["deflection"] <= 0.05


def test_held_out_objects_are_known_words(replies: list[Sample], attacks: list[Sample]) -> None:
    for samples in (replies, attacks):
        tasks = [find_task(sample.messages[-1]["content"]) for sample in samples]
        assert 0.15 < sum(is_heldout(task.object) for task in tasks if task) / N < 0.25


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from cluster.sandbox.tokenizer import build_tokenizer

    return build_tokenizer()


def test_every_word_is_one_token(tokenizer: Any) -> None:
    from cluster.sandbox.tokenizer import words

    for word in words():
        [token] = tokenizer(f" {word}")["input_ids"]
        assert tokenizer.decode([token]) == f" {word}"


def test_texts_come_back_readable_with_tags_and_without_turn_markers(
    tokenizer: Any, attacks: list[Sample], replies: list[Sample]
) -> None:
    from cluster.sandbox.tokenizer import encode

    for sample in attacks[:200] + replies[:200]:
        ids, start = encode(tokenizer, sample)
        assert tokenizer.decode(ids[start:], skip_special_tokens=True).strip() == sample.completion
        assert ids[-1] == tokenizer.eos_token_id
        assert len(ids) <= 64


def test_a_chat_has_the_same_tokens_whether_built_by_the_template_or_turn_by_turn(
    tokenizer: Any, attacks: list[Sample], replies: list[Sample]
) -> None:
    from cluster.sandbox.tokenizer import encode

    for sample in attacks[:50] + replies[:50]:
        whole = [*sample.messages, {"role": "assistant", "content": sample.completion}]
        templated = tokenizer.apply_chat_template(whole, return_dict=False)
        if sample.completion.startswith("<"):
            assert templated == encode(tokenizer, sample)[0]
        assert tokenizer.decode(templated) == tokenizer.decode(encode(tokenizer, sample)[0])
