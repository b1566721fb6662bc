"""Formats are strict: what does not match as a whole is malformed."""

import pytest

from protocol.formats import FORMATS

GOOD = [
    ("think_prompt", "<think> a plan </think> <prompt> the query </prompt>", "the query"),
    ("think_prompt", "\n<think>a\nb</think>\n<prompt>two\nlines</prompt>\n", "two\nlines"),
    ("prompt", "<prompt>q</prompt>", "q"),
    ("plain", "  anything <think> goes ", "anything <think> goes"),
    ("think_plain", "<think>x</think> the answer", "the answer"),
    ("think_answer", "<think>x</think><answer>y</answer>", "y"),
]
BAD = [
    ("think_prompt", "<prompt>q</prompt>"),
    ("think_prompt", "<think>a</think><prompt>q</prompt> and more"),
    ("think_prompt", "so: <think>a</think><prompt>q</prompt>"),
    ("think_prompt", "<think>a</think><prompt></prompt>"),
    ("think_prompt", "<think> </think><prompt>q</prompt>"),
    ("think_prompt", "<think>a<think>b</think></think><prompt>q</prompt>"),
    ("think_prompt", "<think>a</think><prompt>q<prompt>r</prompt></prompt>"),
    ("think_prompt", "<think>a</think><prompt>q</prompt><prompt>r</prompt>"),
    ("think_prompt", "<prompt>q</prompt><think>a</think>"),
    ("think_prompt", ""),
    ("prompt", "<think>a</think><prompt>q</prompt>"),
    ("think_plain", "<think>x</think>   "),
    ("think_plain", "no thought"),
    ("think_plain", "<think>x</think> a <think>y</think>"),
    ("think_answer", "<think>x</think> y"),
]


@pytest.mark.parametrize(("name", "text", "visible"), GOOD)
def test_well_formed(name: str, text: str, visible: str) -> None:
    assert FORMATS[name].visible(text) == visible


@pytest.mark.parametrize(("name", "text"), BAD)
def test_malformed(name: str, text: str) -> None:
    assert FORMATS[name].visible(text) is None
