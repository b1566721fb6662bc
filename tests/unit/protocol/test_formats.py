"""Formats are strict: what does not match as a whole is malformed."""

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.formats import FORMATS, Format

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


# -- decisions and time


def by_one_expression(fmt: Format, text: str) -> str | None:
    """The oracle: the format as one regular expression over the whole text, which backtracks."""
    body = "".join(rf"\s*<{tag}>(?P<{tag}>.*?)</{tag}>" for tag in fmt.parts)
    match = re.fullmatch(body + (r"(?P<tail_>.*)" if fmt.tail else r"\s*"), text, flags=re.DOTALL)
    if match is None:
        return None
    found = {name: value.strip() for name, value in match.groupdict().items()}
    any_tag = re.compile("|".join(rf"</?{tag}>" for tag in fmt.parts))
    if any(not value or any_tag.search(value) for value in found.values()):
        return None
    return found["tail_" if fmt.tail else fmt.parts[-1]]


TAGGED = [f for f in FORMATS.values() if f.parts]
SPACE = st.sampled_from(["", "", " ", "\n", "\t \r", "\x1c", "\x85", "\u00a0", "\u2003", "\u200b"])
CONTENT = st.sampled_from(
    ["", "a", "two words", "x\ny", "<", "</", ">", "think>", "<b>", "<Think>", "<think >", "\x00"]
)
TAGS = st.sampled_from([f"<{slash}{name}>" for name in ("think", "prompt", "answer") for slash in ("", "/")])
ANYTHING = st.lists(TAGS | SPACE | CONTENT, max_size=12).map("".join)


@st.composite
def nearly(draw: st.DrawFn) -> str:
    """Mostly what some format wants, with something put in, or nothing."""
    fmt = draw(st.sampled_from(TAGGED))
    parts = [draw(SPACE)]
    for name in fmt.parts:
        parts += [f"<{name}>", draw(SPACE), draw(CONTENT), draw(SPACE), f"</{name}>", draw(SPACE)]
    parts.append(draw(CONTENT) if fmt.tail else "")
    parts.insert(draw(st.integers(0, len(parts))), draw(st.just("") | TAGS | CONTENT))
    return "".join(parts)


@given(ANYTHING | nearly() | st.text(max_size=20))
@example("<think><</think></prompt>")
def test_the_decisions_are_those_of_the_whole_expression(text: str) -> None:
    for fmt in TAGGED:
        assert fmt.visible(text) == by_one_expression(fmt, text)


LOOPS: dict[str, Callable[[int], str]] = {
    "pairs": lambda n: "<think>a</think>" * n,
    "opening": lambda n: "<think>" * n,
    "closing": lambda n: "<think>" + "</think>" * n,
    "closing in reasoning": lambda n: "<think>a</think> b " * n + "<prompt>",
    "never closed": lambda n: "<think>" + "a</think><prompt>" * n,  # quadratic in the one expression
    "both": lambda n: "<think>a</think><prompt>q</prompt>" * n,
    "white space": lambda n: "<think>a</think>" + " " * 8 * n + "x",
    "brackets": lambda n: "<think>" + "<</" * n,
    "a valid one": lambda n: f"<think>{'a ' * n}</think><prompt>{'q ' * n}</prompt>",
}


def cost_ms(fmt: Format, text: str) -> float:
    """Of this thread's own processor time, so that a busy machine does not count; the least of several."""
    spent = []
    for _ in range(7):
        began = time.thread_time_ns()
        fmt.visible(text)
        spent.append(time.thread_time_ns() - began)
    return min(spent) / 1e6


@pytest.mark.parametrize("loop", LOOPS)
def test_a_text_that_is_many_times_as_long_takes_about_as_many_times_as_long(loop: str) -> None:
    """Thirty-two times the text: 32 times the work if that is linear, 1,024 times if it is quadratic."""
    short, long = LOOPS[loop](1_000), LOOPS[loop](32_000)
    for fmt in TAGGED:
        assert cost_ms(fmt, long) < 200 * max(cost_ms(fmt, short), 0.001)
