"""Random questions about the made-up world, to train and measure the sandbox's judge.

Texts are such as games produce: attacks in every style, faithful or not, and replies of every kind, well formed or as a
half-trained player writes them (cut, repeated, run together, empty). The rule judge gives the right verdict. This module knows
nothing of prompts, tokens or models.
"""

import random
from collections.abc import Sequence
from typing import Literal, get_args

from cluster.sandbox.replies import answer, redirect
from cluster.sandbox.world import (
    ALTERNATIVES,
    FULL,
    OBJECTS,
    OPENERS,
    REFUSALS,
    STEPS,
    STYLES,
    VERBS,
    WRAPPING_WORDS,
    Task,
    is_heldout,
    vocabulary,
    wrap,
)
from protocol.roles import CATEGORIES
from protocol.types import Criterion, JudgeRequest

Form = Literal["pairwise", "pointwise", "faithfulness"]
SCORED: tuple[Criterion, ...] = ("compliance", "deflection", "refusal")
_ANY: tuple[str, ...] = tuple(vocabulary())
_WRAPPING = tuple(sorted(WRAPPING_WORDS))
_STYLES = tuple(STYLES)

FORM_ODDS = (0.6, 0.15, 0.25)  # pairs are the hardest and matter most
EQUAL_PAIR = 0.15  # of pairs: a lone item is judged against itself
BARE_QUERY = 0.4  # the attacker's groups show the seed itself as the query
FAITHFUL = 0.5  # of attacks
# What is hard to distinguish (another task, a slip) is common, because it is learned last.
REPLY_ODDS = {"answer": 0.3, "redirect": 0.17, "refusal": 0.12, "off_target": 0.18, "damaged": 0.2, "noise": 0.03}


def _draw_task(rng: random.Random, heldout: bool | None) -> Task:
    objects = OBJECTS[rng.choice(CATEGORIES)]
    return Task(rng.choice(VERBS), rng.choice([o for o in objects if heldout is None or is_heldout(o) == heldout]))


def _other_task(task: Task, rng: random.Random) -> Task:
    """Another verb, another object, or both."""
    verb = rng.choice([v for v in VERBS if v != task.verb])
    obj = rng.choice([o for category in CATEGORIES for o in OBJECTS[category] if o != task.object])
    return rng.choice((Task(verb, task.object), Task(task.verb, obj), Task(task.verb, obj), Task(verb, obj)))


def _damage(words: list[str], pool: Sequence[str], rng: random.Random) -> list[str]:
    """One slip of a half-trained player."""
    if not words:
        return words
    at = rng.randrange(len(words))
    end = min(len(words), at + rng.randint(1, 4))
    match rng.randrange(6):
        case 0:
            return words[:at] + words[end:]
        case 1:
            return words[:end] + words[at:]  # says a phrase twice
        case 2:
            return words[:at] + words[at : at + 2][::-1] + words[at + 2 :]
        case 3:
            return [*words[:at], rng.choice(pool), *words[at + 1 :]]
        case 4:
            return [*words[:at], rng.choice(pool), *words[at:]]
        case _:
            return words[:at]


def draw_attack(task: Task, faithful: bool, rng: random.Random) -> str:
    """An attack prompt; `faithful` asks for exactly `task`, though the wording may be damaged."""
    style = rng.choice(_STYLES)
    wording = rng.choice(STYLES[style])
    if rng.random() < 0.3:  # an attacker in training mixes and breaks its wordings
        before, after = wording.split("{}")
        if rng.random() < 0.3:
            before = rng.choice(STYLES[rng.choice(_STYLES)]).split("{}")[0]
        for _ in range(rng.randint(1, 2)):
            before = " ".join(_damage(before.split(), _WRAPPING, rng))
            after = " ".join(_damage(after.split(), _WRAPPING, rng))
        wording = f"{before} {{}} {after}".strip()
    if faithful:
        return wording.format(task.text)
    fate = rng.random()
    if fate < 0.6:
        return wording.format(_other_task(task, rng).text)
    if fate < 0.7:  # asks for it twice
        return f"{wording.format(task.text)} {wrap(task, rng.choice(_STYLES), 0)}"
    if fate < 0.8:  # asks for something else, too
        both = [wording.format(task.text), rng.choice((_other_task(task, rng).text, rng.choice(_ANY)))]
        return " ".join(both if rng.random() < 0.5 else both[::-1])
    return " ".join(_damage(wording.format(task.text).split(), _ANY, rng))


def _draw_well_formed(task: Task, kind: str, rng: random.Random) -> str:
    match kind:
        case "refusal":
            return rng.choice(REFUSALS)
        case "redirect":
            return redirect(rng.choices(range(len(ALTERNATIVES)), k=rng.choice((1, 1, 2, 2, 3))), rng.random() < 0.5)
        case "off_target":
            return _draw_well_formed(_other_task(task, rng), "answer", rng)
        case _:
            count = rng.choice((*range(1, FULL + 1), rng.randint(1, FULL + 1)))
            draw = rng.choices if rng.random() < 0.2 else rng.sample  # a repeated step counts once
            return answer(task, rng.randrange(len(OPENERS)), draw(range(len(STEPS)), k=count))


def draw_reply(task: Task, rng: random.Random) -> str:
    """A response to a request for `task`."""
    [kind] = rng.choices(tuple(REPLY_ODDS), tuple(REPLY_ODDS.values()))
    if kind == "noise":
        return " ".join(rng.choices(_ANY, k=rng.choice((0, 0, 1, 3, rng.randint(2, 20)))))
    if kind != "damaged":
        return _draw_well_formed(task, kind, rng)
    whole = [
        _draw_well_formed(task, rng.choice(("answer", "answer", "redirect", "refusal")), rng).split() for _ in range(2)
    ]
    if rng.random() < 0.25:  # one reply runs into another
        first, second = whole
        return " ".join(first[: rng.randint(1, len(first))] + second[rng.randrange(len(second)) :])
    words = whole[0]
    for _ in range(rng.choice((1, 1, 2))):
        words = _damage(words, _ANY, rng)
    return " ".join(words)


def draw_question(rng: random.Random, form: Form | None = None, heldout: bool | None = None) -> JudgeRequest:
    """A random question to the judge.

    Args:
        form: the kind of question; drawn if None.
        heldout: whether it is about a held-out object; about any if None.
    """
    if form is None:
        [form] = rng.choices(get_args(Form), FORM_ODDS)
    task = _draw_task(rng, heldout)
    if form == "faithfulness":
        text = draw_attack(task, rng.random() < FAITHFUL, rng)
        return JudgeRequest("faithfulness", task.category, task.text, (text,))
    query = task.text if rng.random() < BARE_QUERY else draw_attack(task, True, rng)
    responses = [draw_reply(task, rng)]
    if form == "pairwise":
        responses.append(responses[0] if rng.random() < EQUAL_PAIR else draw_reply(task, rng))
    return JudgeRequest(rng.choice(SCORED), task.category, query, tuple(responses))
