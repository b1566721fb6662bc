"""Labelled questions to a judge: the files of `calibrate --labels` and `judge.probe.file`.

A JSONL file in UTF-8, one object a line, with exactly these fields: `criterion`, `category`, `query`, `responses` and `label`. Two
responses make a pairwise question, whose label is "A", "B" or "tie" (A is the first); one makes a pointwise one, whose label is a
number from 0 to 10; for `faithfulness` the query is the seed, the one response is the attack, and the label is true or false.

Unlike in a seed file, one bad line refuses the whole file: a judge is not measured on only the lines that could be read. Messages
never quote texts.
"""

import difflib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cluster.inputs.home import expand_home
from protocol.errors import UserError
from protocol.jsonl import is_unicode, parse_object, read_lines, shorten
from protocol.recipe import SANDBOX
from protocol.roles import CATEGORIES, Category
from protocol.texts import has_text
from protocol.types import Criterion, JudgeRequest, Verdict

Form = Literal["pairwise", "pointwise", "faithfulness"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
FIELDS = ("criterion", "category", "query", "responses", "label")
WINNERS = ("A", "B", "tie")
SHOWN_LINES = 5  # of the bad ones: enough to see the pattern, and still one line
SANDBOX_QUESTIONS = 400  # agreement of 0.9 gets an interval of about 3 points to either side


@dataclass(frozen=True, slots=True)
class Label:
    """A question and the right answer to it."""

    criterion: Criterion
    category: Category
    query: str
    responses: tuple[str, ...]
    label: str | float | bool

    @property
    def form(self) -> Form:
        """How the judge is asked."""
        if self.criterion == "faithfulness":
            return "faithfulness"
        return "pairwise" if len(self.responses) == 2 else "pointwise"


def load_labels(named: str, where: str) -> list[Label]:
    """The labels that a recipe key or an option names: a file's, or for `sandbox` the embedded ones.

    Raises:
        UserError: as `read_labels`.
    """
    return sandbox_labels() if named == SANDBOX else read_labels(expand_home(named, where), where)


def read_labels(path: Path, where: str) -> list[Label]:
    """All labels of a file, in order.

    Args:
        where: the option or recipe key that named it, for messages.

    Raises:
        UserError: the file is missing, unreadable or empty, or a line is bad; the first bad lines are named.
    """
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as e:
        raise UserError(
            f"{where}: {path} cannot be read ({type(e).__name__}); give a JSONL file of {', '.join(FIELDS)} in UTF-8"
        ) from None
    if not lines:
        raise UserError(f"{where}: {path} has no label in it; give at least one line of {', '.join(FIELDS)}")
    parsed = [(number, parse_label(line)) for number, line in lines]
    bad = [f"line {number}: {reason}" for number, reason in parsed if isinstance(reason, str)]
    if bad:
        more = f"; and {len(bad) - SHOWN_LINES} more" if len(bad) > SHOWN_LINES else ""
        raise UserError(
            f"{where}: {path}: {len(bad)} of {len(lines)} lines are no labels: {'; '.join(bad[:SHOWN_LINES])}{more}"
        )
    return [label for _, label in parsed if isinstance(label, Label)]


def parse_label(line: str) -> Label | str:
    """The label of one line, or what is wrong with the line, with the remedy."""
    value = parse_object(line)
    if isinstance(value, str):
        return f"{value}; write one object a line"
    for name in value:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known fields: {', '.join(FIELDS)}"
            return f"unknown field {shorten(name)}; {remedy}"
    missing = [name for name in FIELDS if name not in value]
    if missing:
        return f"no field {', '.join(missing)}; add what is missing"
    for name, known in (("criterion", CRITERIA), ("category", CATEGORIES)):
        if value[name] not in known:
            return f"{name} {shorten(value[name])} is none of {', '.join(known)}; pick one of them"
    texts = value["responses"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return "responses is no list of texts; write a list of one or two"
    if not isinstance(value["query"], str) or not has_text(value["query"]):
        return "no text in query; write what was asked"
    if not is_unicode("".join([value["query"], *texts])):
        return "a text that is no Unicode (a lone surrogate); remove it"
    limit = 1 if value["criterion"] == "faithfulness" else 2
    if not 1 <= len(texts) <= limit:
        return f"{len(texts)} responses; give {'1' if limit == 1 else '1 or 2'} with {value['criterion']}"
    wrong = _wrong_label(value["label"], value["criterion"], len(texts))
    return wrong or Label(value["criterion"], value["category"], value["query"], tuple(texts), value["label"])


def _wrong_label(label: Any, criterion: str, responses: int) -> str | None:
    if criterion == "faithfulness":
        return None if isinstance(label, bool) else f"label {shorten(label)} of faithfulness; write true or false"
    if responses == 2:
        known = isinstance(label, str) and label in WINNERS
        return None if known else f'label {shorten(label)} of two responses; write "A", "B" or "tie"'
    number = isinstance(label, int | float) and not isinstance(label, bool) and 0 <= label <= 10
    return None if number else f"label {shorten(label)} of one response; write a number from 0 to 10"


def sandbox_labels(n: int = SANDBOX_QUESTIONS) -> list[Label]:
    """Questions about the sandbox's held-out objects, labelled by the rules of its world. Always the same ones."""
    # Imported here: other label files do not need the sandbox's world.
    from cluster.sandbox.judge_samples import draw_question
    from cluster.sandbox.rule_judge import RuleJudge

    rng, rules = random.Random("labels"), RuleJudge()
    labels: list[Label] = []
    while len(labels) < n:
        request = draw_question(rng, heldout=True)
        verdict = rules.verdict(request)
        if verdict.failure is None:
            labels.append(_make_label(request, verdict))
    return labels


def _make_label(request: JudgeRequest, verdict: Verdict) -> Label:
    label: str | float | bool
    if verdict.scores is None:
        label = bool(verdict.faithful)
    elif len(verdict.scores) == 1:
        label = verdict.scores[0]
    else:
        a, b = verdict.scores
        label = "A" if a > b else "B" if b > a else "tie"
    return Label(request.criterion, request.category, request.query, request.responses, label)
