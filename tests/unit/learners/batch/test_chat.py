"""Demonstrations as tokens: an answer is what would have to be sampled after the prompt, whatever the template does to answers."""

from pathlib import Path
from typing import Any

import pytest

from actors.engine.chat import ChatPrompts
from learners.batch.chat import ChatTokenizer
from learners.batch.demonstrations import load_demonstrations
from learners.spec import LearnerSpec
from protocol.format_examples import make_examples
from protocol.prompts import fold_system
from protocol.recipe import LearnerConfig, SftConfig
from protocol.types import Seed
from tests.integration.tiny_qwen import EOS_ID, save_tokenizer
from tests.unit.actors.engine.chat_models import gemma
from tests.unit.learners.batch.test_demonstrations import model

__all__ = ["model"]
ASKED = [{"role": "user", "content": "w1-"}]
OPENS = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
# As reasoning models' templates: what stands before </think> in an answer is dropped.
DROPS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{{ m['content'].split('</think>')[-1] | trim }}{% else %}{{ m['content'] }}{% endif %}"
    "<|im_end|>{% endfor %}"
)


def saved(folder: Path, template: str) -> tuple[str, Any]:
    from transformers import AutoTokenizer

    save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder), tokenizer


def test_the_tag_that_the_template_opens_is_not_learned(tmp_path: Path) -> None:
    path, tokenizer = saved(tmp_path, DROPS + OPENS)
    prompt, answer = ChatTokenizer(path)(ASKED, "<think> w2- </think>\n<prompt> w3- </prompt>")
    assert tokenizer.decode(prompt).endswith("assistant<think>\n"), "its words swallow the white space before them"
    said = tokenizer.decode(answer)
    assert "".join(said.split()) == "w2-</think><prompt>w3-</prompt><|im_end|>" and answer[-1] == EOS_ID


def test_reasoning_that_the_template_drops_is_learned(tmp_path: Path) -> None:
    generation = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    path, tokenizer = saved(tmp_path, DROPS + generation)
    _, answer = ChatTokenizer(path)(ASKED, "<think> w2- </think>\n<prompt> w3- </prompt>")
    assert "<think>" in tokenizer.decode(answer) and answer[-1] == EOS_ID
    _, plain = ChatTokenizer(path)(ASKED, "w3-")
    assert tokenizer.decode(plain).replace(" ", "") == "w3-<|im_end|>"


def test_template_arguments_are_given_to_every_rendering(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% if short %} w9-{% endif %}{% endif %}"
    )
    path, tokenizer = saved(tmp_path, template)
    plain, short = (ChatTokenizer(path, given)(ASKED, "w3-")[0] for given in ({}, {"short": True}))
    assert tokenizer.decode(short).strip().endswith("w9-") and not tokenizer.decode(plain).strip().endswith("w9-")


def save_gemma(folder: Path, silent: bool) -> Any:
    """A tokenizer whose template knows no system turn: it refuses one, or leaves its text out."""
    import json

    tokenizer = gemma()
    if silent:
        refusal = "{{ raise_exception('no system turn') }}"
        assert refusal in tokenizer.chat_template
        tokenizer.chat_template = tokenizer.chat_template.replace(refusal, "").replace(
            "for m in messages", "for m in messages if m['role'] != 'system'"
        )
    tokenizer.save_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [tokenizer.eos_token_id, end]}))
    return tokenizer


@pytest.mark.parametrize("silent", [False, True])
def test_a_warm_start_shows_the_games_prompts_where_the_template_knows_no_system_turn(
    tmp_path: Path, silent: bool
) -> None:
    """Gemma 2's kind. What the engine makes of the same messages is the measure."""
    tokenizer = save_gemma(tmp_path, silent)
    seeds = [Seed("a", "tell me how a lock works", "harmful"), Seed("b", "write a story", "benign")]
    examples = make_examples(seeds, 2, "standard", "think_prompt", 0)
    config = LearnerConfig(sft=SftConfig(batch=2, warm_steps=1))
    spec = LearnerSpec("attacker", str(tmp_path), config, 1, 0, "run", "float32", warm=examples)
    warm = load_demonstrations(spec).warm
    assert warm is not None
    shown = {}
    for sequences in warm.batch(0, 0, 1).micro:
        for tokens, targets, mask in zip(sequences.tokens_BT, sequences.targets_BK, sequences.mask_BK, strict=True):
            answer = targets[mask].tolist()
            shown[tokenizer.decode(answer)] = tokens.tolist()
    assert len(shown) == 2
    for example in examples:
        (answer,) = (said for said in shown if example.answer in said)
        assert answer == f"{example.answer}<end_of_turn>"
        asked = ChatPrompts(tokenizer).encode(example.messages)
        assert shown[answer][: len(asked)] == asked
        assert fold_system(example.messages)[0]["content"] in tokenizer.decode(asked)


def test_texts_that_spell_a_special_token_are_known(model: str) -> None:
    tokenize = ChatTokenizer(model)
    assert tokenize.spells_control("a <|im_end|> b") and not tokenize.spells_control("a <think> b")


@pytest.mark.parametrize("ids", [None, [EOS_ID, 300]])
def test_the_folders_generation_config_names_further_ends(tmp_path: Path, ids: list[int] | None) -> None:
    import json

    from learners.batch.chat import _stop_ids

    _, tokenizer = saved(tmp_path, DROPS)
    if ids is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    assert _stop_ids(tokenizer, tmp_path) == {EOS_ID, *(ids or [])}
