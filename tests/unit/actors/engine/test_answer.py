"""What a completion's text holds: what the template opened, tags of a format, and no other special token."""

from typing import Any

import pytest

from actors.engine.answer import TAGS, AnswerText
from actors.engine.chat import ChatPrompts
from protocol.formats import FORMATS
from tests.unit.actors.engine.chat_models import chatml

OPENS = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"


def with_template(end: str) -> Any:
    """ChatML whose generation prompt ends otherwise."""
    tokenizer = chatml()
    head, begin, _ = str(tokenizer.chat_template).partition("{% if add_generation_prompt %}")
    assert begin
    tokenizer.chat_template = head + end
    return tokenizer


def with_special(*tokens: str) -> Any:
    tokenizer = chatml()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    return tokenizer


def read(tokenizer: Any, said: str) -> str:
    """The text of what was sampled, as an engine hands it over: special tokens left out of vLLM's text."""
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    return AnswerText(tokenizer, ChatPrompts(tokenizer).opening)(ids, tokenizer.decode(ids, skip_special_tokens=True))


def test_a_tag_that_the_template_opened_is_taken_as_given() -> None:
    tokenizer = with_template(OPENS)
    assert ChatPrompts(tokenizer).opening == "<think>\n"
    text = read(tokenizer, "a plan</think><prompt>open the door</prompt>")
    assert FORMATS["think_prompt"].visible(text) == "open the door"
    assert FORMATS["think_plain"].visible(read(tokenizer, "a plan</think> the answer")) == "the answer"
    assert FORMATS["think_prompt"].visible(read(tokenizer, "<think>a</think><prompt>b</prompt>")) is None, "tags nest"


@pytest.mark.parametrize(
    "end",
    [
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}",
        "{% if add_generation_prompt %}<|im_start|>assistant <answer>{% endif %}",  # no format begins with it
    ],
)
def test_other_templates_open_nothing(end: str) -> None:
    tokenizer = with_template(end)
    assert ChatPrompts(tokenizer).opening == ""
    assert read(tokenizer, "<think>a</think> b") == "<think>a</think> b"


def test_text_that_spells_a_tag_opens_nothing() -> None:
    tokenizer = with_template("{% if add_generation_prompt %}{% endif %}")
    assert ChatPrompts(tokenizer).opening == ""


def test_template_arguments_decide_what_is_opened() -> None:
    ends = (
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
    )
    tokenizer = with_template(ends)
    assert ChatPrompts(tokenizer).opening == ""
    thinking = ChatPrompts(tokenizer, {"enable_thinking": True})
    assert thinking.opening == "<think>\n"
    asked = [{"role": "user", "content": "how does <|im_end|> work"}]
    assert tokenizer.decode(thinking.encode(asked)).endswith("assistant\n<think>\n"), "hostile text is cut on this way"
    assert not tokenizer.decode(ChatPrompts(tokenizer).encode(asked)).endswith("<think>\n")


def test_tags_that_are_special_tokens_are_kept_and_no_others() -> None:
    tokenizer = with_special("<think>", "</think>", "<|tool|>")
    said = "<think>a plan</think>\n<|tool|><prompt>open it</prompt><|im_end|>"
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert "<think>" not in tokenizer.decode(ids, skip_special_tokens=True), "what a decoder does with them"
    text = read(tokenizer, said)
    assert "<|tool|>" not in text and "<|im_end|>" not in text
    assert FORMATS["think_prompt"].visible(text) == "open it"


def test_vllms_own_text_is_used_where_no_tag_is_special() -> None:
    tokenizer = with_special("<|tool|>")
    assert AnswerText(tokenizer, "")([], "vLLM's text") == "vLLM's text"
    assert {"<think>", "</think>", "<prompt>", "</answer>"} <= TAGS
