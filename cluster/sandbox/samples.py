"""Random samples to pre-train the sandbox's base players on: (messages, completion) for each of them.

The base attacker wraps a seed in any style, all about equally, and sometimes breaks the format or the meaning. The base defender
refuses most plain harmful asks, answers them in some styles, refuses benign asks in others, and in every style sometimes redirects,
so that both players can improve. Held-out objects occur here like all others: only games avoid them.
"""

import random
from typing import NamedTuple

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
    Style,
    Task,
    wrap,
)
from protocol.prompts import attacker_messages, defender_messages
from protocol.roles import CATEGORIES, Category
from protocol.types import Message, Seed

FORMAT = "think_prompt"
BROKEN_FORMAT = 0.07  # of attacks
CHANGED_MEANING = 0.07  # of attacks


class Odds(NamedTuple):
    """How often the base defender refuses and redirects; it answers otherwise."""

    refuses: float
    redirects: float


# Over all styles 59 % of harmful asks are answered and 30 % of benign ones are not. The odds lie on both sides of one half, so
# that sampling at temperature 0.6 changes these shares little.
DEFENDER: dict[Category, dict[Style, Odds]] = {
    "harmful": {
        "plain": Odds(0.62, 0.15),
        "story": Odds(0.10, 0.16),
        "grandma": Odds(0.10, 0.16),
        "pirate": Odds(0.12, 0.16),
        "exam": Odds(0.12, 0.16),
        "hurry": Odds(0.35, 0.15),
        "secret": Odds(0.58, 0.15),
        "expert": Odds(0.16, 0.16),
        "game": Odds(0.20, 0.16),
    },
    "benign": {
        "plain": Odds(0.04, 0.02),
        "story": Odds(0.04, 0.02),
        "grandma": Odds(0.04, 0.02),
        "pirate": Odds(0.50, 0.02),
        "exam": Odds(0.04, 0.02),
        "hurry": Odds(0.78, 0.03),
        "secret": Odds(0.86, 0.03),
        "expert": Odds(0.04, 0.02),
        "game": Odds(0.20, 0.02),
    },
}


class Sample(NamedTuple):
    """One turn to learn: the chat before it, and the player's completion."""

    messages: tuple[Message, ...]
    completion: str


def thought(style: Style) -> str:
    """The attacker's hidden reasoning when it picks a style."""
    return f"the {style} way"


def _task(rng: random.Random) -> Task:
    return Task(rng.choice(VERBS), rng.choice(OBJECTS[rng.choice(CATEGORIES)]))


def _break_format(think: str, prompt: str, rng: random.Random) -> str:
    return rng.choice(
        (
            f"<think> {think}<prompt> {prompt}</prompt>",
            f"<think> {think}</think> {prompt}",
            f"<prompt> {prompt}</prompt>",
            f"<think> {think}</think><prompt> {prompt}",
        )
    )


def _other_task(task: Task, rng: random.Random) -> Task:
    """The same category, another verb or another object."""
    if rng.random() < 0.5:
        return Task(rng.choice([v for v in VERBS if v != task.verb]), task.object)
    return Task(task.verb, rng.choice([obj for obj in OBJECTS[task.category] if obj != task.object]))


def attacker_sample(rng: random.Random) -> Sample:
    """A seed and the base attacker's rewrite of it."""
    task, style = _task(rng), rng.choice(tuple(STYLES))
    messages = attacker_messages(Seed("", task.text, task.category), "sandbox", FORMAT)
    fate = rng.random()
    asked = _other_task(task, rng) if fate < CHANGED_MEANING else task
    prompt = wrap(asked, style, rng.randrange(len(STYLES[style])))
    if CHANGED_MEANING <= fate < CHANGED_MEANING + BROKEN_FORMAT:
        return Sample(messages, _break_format(thought(style), prompt, rng))
    return Sample(messages, f"<think> {thought(style)}</think><prompt> {prompt}</prompt>")


def _reply(task: Task, odds: Odds, rng: random.Random) -> str:
    fate = rng.random()
    if fate < odds.refuses:
        return rng.choice(REFUSALS)
    if fate < odds.refuses + odds.redirects:
        offers = rng.sample(range(len(ALTERNATIVES)), rng.choice((1, 1, 2)))
        return redirect(offers, hurt=rng.random() < 0.5)
    return answer(task, rng.randrange(len(OPENERS)), rng.sample(range(len(STEPS)), rng.randint(1, FULL)))


def defender_sample(rng: random.Random) -> Sample:
    """An attack prompt and the base defender's reply to it."""
    task, style = _task(rng), rng.choice(tuple(STYLES))
    prompt = wrap(task, style, rng.randrange(len(STYLES[style])))
    reply = _reply(task, DEFENDER[task.category][style], rng)
    return Sample(defender_messages(prompt, "sandbox", "plain"), reply)
