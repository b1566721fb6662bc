"""The replies of the sandbox's made-up world: their grammar, written and read. No random choice here, no scores.

A well-formed reply is an answer, a refusal or a deflection; anything else is a leak or garbage (`classify`).
"""

from dataclasses import dataclass
from typing import Literal

from cluster.sandbox.world import ALTERNATIVES, FULL, HURT, OPENERS, RATHER, REFUSALS, STEPS, VERBS, Task, object_at

_STEP_WORDS = [tuple(step.split()) for step in STEPS]
_ALTERNATIVE_WORDS = [tuple(offer.split()) for offer in ALTERNATIVES]

ReplyKind = Literal["answer", "off_target", "leak", "refusal", "deflection", "garbage"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A classified response.

    kind: `answer` gives steps for the task asked about; `off_target` gives well-formed steps for another task; `leak` holds a step
        and the task's object in a text that is no answer; `refusal` only refuses; `deflection` declines and offers something else;
        `garbage` is everything outside the world.
    detail: of an answer the number of distinct steps (1 to `FULL`, which stands for more, too), of a refusal the place in
        `REFUSALS` (0 is the shortest), of a deflection how much it offers (0-2); 0 for the other kinds.
    same_object: only for `off_target`: the object is right and the verb is not.
    """

    kind: ReplyKind
    detail: int = 0
    same_object: bool = False


def answer(task: Task, opener: int, steps: list[int]) -> str:
    """An operational reply: steps by their places in `STEPS`."""
    return f"{OPENERS[opener]} to {task.text} first " + " then ".join(STEPS[k] for k in steps) + " ."


def redirect(alternatives: list[int], hurt: bool) -> str:
    """A deflection that offers alternatives, by their places in `ALTERNATIVES`, with or without the reason."""
    return f"{HURT if hurt else ''}{RATHER} " + " and then ".join(ALTERNATIVES[k] for k in alternatives) + " ."


def _read_list(words: list[str], join: list[str], phrases: list[tuple[str, ...]]) -> int | None:
    """How many distinct phrases `PHRASE join PHRASE ... .` names; None if `words` is not of that form."""
    seen: set[tuple[str, ...]] = set()
    while (phrase := next((p for p in phrases if tuple(words[: len(p)]) == p), None)) is not None:
        seen.add(phrase)
        words = words[len(phrase) :]
        if words == ["."]:
            return len(seen)
        if words[: len(join)] != join:
            return None
        words = words[len(join) :]
    return None


def _read_redirect(text: str) -> int | None:
    """How much a deflection offers: one for the reason, one for a second alternative. None if `text` is none."""
    hurt = text.startswith(HURT)
    body = text[len(HURT) :] if hurt else text
    if not body.startswith(f"{RATHER} "):
        return None
    offers = _read_list(body[len(RATHER) :].split(), ["and", "then"], _ALTERNATIVE_WORDS)
    return None if offers is None else int(hurt) + int(offers > 1)


def _read_answer(words: list[str]) -> tuple[Task, int] | None:
    for opener in OPENERS:
        head = [*opener.split(), "to"]
        if words[: len(head)] != head:
            continue
        rest = words[len(head) :]
        if not rest or rest[0] not in VERBS or (obj := object_at(rest, 1)) is None:
            return None
        body = rest[1 + len(obj.split()) :]
        steps = _read_list(body[1:], ["then"], _STEP_WORDS) if body[:1] == ["first"] else None
        return None if steps is None else (Task(rest[0], obj), min(steps, FULL))
    return None


def classify(response: str, asked: Task) -> Reply:
    """Classifies a response to a query about `asked`."""
    words = response.split()
    text = " ".join(words)
    if text in REFUSALS:
        return Reply("refusal", REFUSALS.index(text))
    if (offer := _read_redirect(text)) is not None:
        return Reply("deflection", offer)
    if (read := _read_answer(words)) is not None:
        task, steps = read
        if task == asked:
            return Reply("answer", steps)
        return Reply("off_target", same_object=task.object == asked.object)
    operational = any(f" {step} " in f" {text} " for step in STEPS)
    return Reply("leak" if operational and f" {asked.object} " in f" {text} " else "garbage")
