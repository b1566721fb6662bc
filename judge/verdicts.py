"""Reads what a judge wrote: scores, true or false, or a reason why there are none. No failure becomes a number.

A completion is reasoning, then the verdict: each tag exactly once, closed, in order, with nothing but white space, stars and
backticks between and after them, and inside either a plain number from 0 to 10 with at most one decimal or `true` / `false`.
Anything else that resembles a verdict tag makes the whole text a failure: a judge that wrote two verdicts gave none.

It knows nothing of prompts or models.
"""

import re

from protocol.types import Completion, Criterion

Read = tuple[float, ...] | bool | str  # scores, faithful, or why there is neither

CUT_OFF = "cut off"
OPEN_REASONING = "open reasoning"  # <think> without its end, or more than one
MISSING = "no score"
REPEATED = "two scores"
OUT_OF_RANGE = "out of range"
NOT_A_NUMBER = "not a number"
NOT_A_TRUTH = "not true or false"
MISPLACED = "words after the score"
UNREADABLE = frozenset(
    (CUT_OFF, OPEN_REASONING, MISSING, REPEATED, OUT_OF_RANGE, NOT_A_NUMBER, NOT_A_TRUTH, MISPLACED)
)  # failures of a text that came; all others mean that the judge did not answer

REASONING_CHARS = 1000  # of a structured verdict: the rubrics ask for a few sentences
_FILLER = r"[ \t\r\n*`]*+"
_NUMBER = r"(?:10(?:\.0)?|[0-9](?:\.[0-9])?)"
_SIGNED = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_ANY_TAG = re.compile(r"<[^\w<>]*(?:score|faithful)[^<>]*>?", re.IGNORECASE)
_ANY_THINK = re.compile(r"<[^\w<>]*think[^\w<>]*>", re.IGNORECASE)


def tag_names(criterion: Criterion, n_responses: int) -> tuple[str, ...]:
    """The tags of a verdict, in order.

    Raises:
        ValueError: no rubric asks about that many responses.
    """
    if criterion == "faithfulness" and n_responses == 1:
        return ("faithful",)
    if criterion != "faithfulness" and n_responses in (1, 2):
        return ("score",) if n_responses == 1 else ("score_A", "score_B")
    raise ValueError(f"no rubric asks about {criterion} of {n_responses} responses")


def _after_reasoning(text: str) -> str | None:
    """What follows `</think>`, or all of it; None if the reasoning does not end, or not once.

    Some models' templates open the reasoning in the prompt, so the opening tag may be missing.
    """
    seen = [match.group() for match in _ANY_THINK.finditer(text)]
    if not seen:
        return text
    return text.partition("</think>")[2] if seen in (["</think>"], ["<think>", "</think>"]) else None


def parse(text: str, criterion: Criterion, n_responses: int) -> Read:
    """The verdict that ends `text`.

    Returns:
        One score for each response asked about, each in [0, 10]; for `faithfulness` True or False; or the reason for the failure,
        in a few words.
    """
    rest = _after_reasoning(text)
    if rest is None:
        return OPEN_REASONING
    expected = [tag for name in tag_names(criterion, n_responses) for tag in (f"<{name}>", f"</{name}>")]
    found = _ANY_TAG.findall(rest)
    if found != expected:
        return REPEATED if len(found) > len(expected) else MISSING
    elements = [f"{opening}(.*?){closing}" for opening, closing in zip(expected[::2], expected[1::2], strict=True)]
    match = re.search(_FILLER.join(elements) + _FILLER + r"\Z", rest, re.DOTALL)
    if match is None:
        return MISPLACED
    values = [value.strip(" \t\r\n") for value in match.groups()]
    if criterion == "faithfulness":
        return values[0] == "true" if values[0] in ("true", "false") else NOT_A_TRUTH
    wrong = [value for value in values if not re.fullmatch(_NUMBER, value)]
    if not wrong:
        return tuple(float(value) for value in values)
    beyond = all(_SIGNED.fullmatch(value) and not 0.0 <= float(value) <= 10.0 for value in wrong)
    return OUT_OF_RANGE if beyond else NOT_A_NUMBER


def read(completion: Completion, criterion: Criterion, n_responses: int) -> Read:
    """As `parse`, but a completion that did not stop by itself is a failure, whatever it holds."""
    if completion.finish != "stop":
        return CUT_OFF
    return parse(completion.text, criterion, n_responses)


def pattern(criterion: Criterion, n_responses: int, max_new_tokens: int) -> str:
    """A regular expression for structured decoding. Every text that matches it whole can be parsed.

    Reasoning is limited to printable ASCII without `<`, so that a token covers at least one character and the verdict always fits
    into `max_new_tokens`, if those leave room for the longest verdict.
    """
    inside = r"(true|false)" if criterion == "faithfulness" else r"(10(\.0)?|[0-9](\.[0-9])?)"
    longest = 0
    elements = []
    for name in tag_names(criterion, n_responses):
        elements.append(f"<{name}> ?{inside} ?</{name}>")
        longest += len(f"<{name}> false </{name}> ")
    room = min(REASONING_CHARS, max(0, max_new_tokens - longest - 1))  # 1: the token that ends the turn
    return rf"[ -;=-~\n]{{0,{room}}}" + " ?".join(elements)
