"""A label for each word of a text: what is known about the text once that word is read. A training signal a word, not one a text.

A label says whether the text so far is a well-formed reply, about which task, and how much of it there is. A model that must
predict these as it reads learns to judge from a fraction of the texts. They only help training: the right verdict comes from the
rule judge, and nothing here is used when the judge judges.
"""

from cluster.sandbox.world import (
    ALTERNATIVES,
    FULL,
    HURT,
    OBJECTS,
    OPENERS,
    RATHER,
    REFUSALS,
    STEPS,
    VERBS,
    WRAPPING_WORDS,
    Task,
    find_task,
)
from protocol.types import JudgeRequest

ENDS = ("answer", "refusal", "deflection")
# By the place within a well-formed reply: the phrases that may come next, and the place that each leads to.
_GRAMMAR: dict[str, list[tuple[str, str]]] = {
    "start": [
        *((f"{opener} to", "verb") for opener in OPENERS),
        *((refusal, "refusal") for refusal in REFUSALS),
        *((f"{HURT}{RATHER}", "offer"), (RATHER, "offer")),
    ],
    "verb": [(verb, "object") for verb in VERBS],
    "object": [(obj, "first") for objects in OBJECTS.values() for obj in objects],
    "first": [("first", "step")],
    "step": [(step, "after step") for step in STEPS],
    "after step": [("then", "step"), (".", "answer")],
    "offer": [(offer, "after offer") for offer in ALTERNATIVES],
    "after offer": [("and then", "offer"), (".", "deflection")],
    **{end: [] for end in ENDS},
}
_OPTIONS = {place: [(tuple(p.split()), to) for p, to in options] for place, options in _GRAMMAR.items()}
_PLACES = tuple(_GRAMMAR)

# A label is a number: a reply that is still well formed (place x task x amount), one that is not, or an attack. Those of a pair's
# second reply follow those of the first, so that every word also knows which reply it is of.
_AMOUNTS = FULL + 1
_BROKEN = len(_PLACES) * 4 * _AMOUNTS
_ATTACK = _BROKEN + 4
_ONE = _ATTACK + 6
LABELS = 2 * _ONE

_Reading = tuple[str, tuple[str, ...], tuple[str, ...]]  # the place, the phrases said, the words of the one being said


def _read_on(readings: set[_Reading], word: str) -> set[_Reading]:
    """Every reading continued with `word`; none if the text is not well formed any more."""
    after: set[_Reading] = set()
    for place, said, begun in readings:
        words = (*begun, word)
        for phrase, to in _OPTIONS[place]:
            if phrase == words:
                after.add((to, (*said, " ".join(phrase)), ()))
            elif phrase[: len(words)] == words:
                after.add((place, said, words))
    return after


def _label_well_formed(reading: _Reading, asked: Task) -> int:
    place, said, _ = reading
    if said and said[0] in REFUSALS:
        return _label(place, 0, REFUSALS.index(said[0]))
    steps = len({phrase for phrase in said if phrase in STEPS})
    offers = len({phrase for phrase in said if phrase in ALTERNATIVES})
    hurt = bool(said) and said[0].startswith(HURT)
    return _label(place, 2 * (asked.verb in said) + (asked.object in said), min(steps, FULL) or min(offers, 2) + hurt)


def _label(place: str, task: int, amount: int) -> int:
    return (_PLACES.index(place) * 4 + task) * _AMOUNTS + amount


def _label_broken(words: list[str], asked: Task) -> int:
    text = f" {' '.join(words)} "
    return _BROKEN + 2 * any(f" {step} " in text for step in STEPS) + (f" {asked.object} " in text)


def trace_reply(text: str, asked: Task) -> list[int]:
    """A label for each word of a response, and one for its end."""
    words = text.split()
    readings: set[_Reading] = {("start", (), ())}
    labels = []
    for count, word in enumerate(words, 1):
        readings = _read_on(readings, word)
        labels.append(_label_well_formed(min(readings), asked) if readings else _label_broken(words[:count], asked))
    whole = [reading for reading in readings if reading[0] in ENDS]
    return [*labels, _label_well_formed(whole[0], asked) if whole else _label_broken(words, asked)]


def trace_attack(text: str, seed: Task) -> list[int]:
    """A label for each word of an attack, and one for its end: how often it has asked for the seed, and for anything else."""
    words, wanted = text.split(), seed.text.split()
    times, foreign, labels = 0, False, [_ATTACK]
    for count, word in enumerate(words, 1):
        times += words[:count][-len(wanted) :] == wanted
        foreign = foreign or (word not in WRAPPING_WORDS and word not in wanted)
        labels.append(_ATTACK + 2 * min(times, 2) + foreign)
    return [*labels[1:], labels[-1]]


def trace(request: JudgeRequest) -> list[list[int]]:
    """The labels, all below `LABELS`, of each text that the question shows beside its query.

    Raises:
        ValueError: the query asks for nothing in the world.
    """
    asked = find_task(request.query)
    if asked is None:
        raise ValueError("the query asks for nothing in the sandbox's world")
    read = trace_attack if request.criterion == "faithfulness" else trace_reply
    return [[side * _ONE + label for label in read(text, asked)] for side, text in enumerate(request.responses)]
