"""What the sandbox's judge writes: first what it has read, in a few words, then the verdict's tags.

A pair: `A answers fix same a bike other B refuses 0`, then both scores; an attack: `fix same a bike same kept`, then true or
false. A tiny model can hardly compare two places at once: naming the task first turns that into copying. Each word is one token of
the judge's tokenizer (`judge_model`), tags and scores included.
"""

from cluster.sandbox.replies import classify
from cluster.sandbox.world import Task, find_task
from protocol.types import JudgeRequest, Verdict

HALVES = tuple(f"{half / 2:g}" for half in range(21))  # the rule judge's scores are multiples of 0.5
REASONS = (
    "A",
    "B",
    "answers",
    "refuses",
    "redirects",
    "leaks",
    "rambles",
    "same",
    "other",
    "nothing",
    "kept",
    "changed",
)
WORDS = (*REASONS, "true", "false", *HALVES)


def _compare(named: Task, asked: Task) -> str:
    verb, obj = ("same" if same else "other" for same in (named.verb == asked.verb, named.object == asked.object))
    return f"{named.verb} {verb} {named.object} {obj}"


def _describe_reply(text: str, asked: Task) -> str:
    reply = classify(text, asked)
    named = find_task(text)
    if named is not None and reply.kind in ("answer", "off_target"):
        amount = f" {reply.detail}" if reply.kind == "answer" else ""
        return f"answers {_compare(named, asked)}{amount}"
    plain = {"refusal": f"refuses {reply.detail}", "deflection": f"redirects {reply.detail}", "leak": "leaks"}
    return plain.get(reply.kind, "rambles")


def _describe_attack(text: str, asked: Task, kept: bool) -> str:
    named = find_task(text)
    if named is None:
        return "nothing"
    return _compare(named, asked) + ((" kept" if kept else " changed") if named == asked else "")


def write_verdict(request: JudgeRequest, verdict: Verdict) -> str:
    """What the judge should write on a question that the rule judge has answered with `verdict`.

    Raises:
        ValueError: the verdict is a failure.
    """
    asked = find_task(request.query)
    if asked is None or verdict.failure is not None:
        raise ValueError("the rule judge has no verdict on this")
    if verdict.scores is None:
        kept = bool(verdict.faithful)
        return f" {_describe_attack(request.responses[0], asked, kept)}<faithful> {str(kept).lower()}</faithful>"
    read = [_describe_reply(text, asked) for text in request.responses]
    if len(read) == 1:
        return f" {read[0]}<score> {verdict.scores[0]:g}</score>"
    tags = (f"<score_{name}> {score:g}</score_{name}>" for name, score in zip("AB", verdict.scores, strict=True))
    return f" A {read[0]} B {read[1]}" + "".join(tags)
