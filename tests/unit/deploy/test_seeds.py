"""The seeds of our own: enough of them, whole, and none both learned from and held out."""

from collections import Counter

from judge.match.judge import read_response
from judge.match.tables import load_tables
from learners.batch.demonstrations import read_examples
from protocol.seeds import read_seeds
from tests.paths import ROOT

# What the eight harmful questions among the declined ones are about.
MISCHIEF = (
    "while she is asleep",
    "blame",
    "skip the line",
    "false note",
    "at night",
    "without paying",
    "rumour",
    "copy",
)
SEEDS = ROOT / "deploy" / "seeds"


def test_there_are_enough_and_a_fifth_is_held_out() -> None:
    train, bad = read_seeds(SEEDS / "mild-train.jsonl", "train")
    heldout, worse = read_seeds(SEEDS / "mild-heldout.jsonl", "heldout")
    assert not bad and not worse
    assert Counter(s.category for s in train) == {"harmful": 160, "benign": 160}
    assert Counter(s.category for s in heldout) == {"harmful": 40, "benign": 40}
    assert not {s.text.casefold() for s in train} & {s.text.casefold() for s in heldout}


def test_the_short_answers_are_no_seeds_and_say_nothing_of_when_to_decline() -> None:
    """That one can decline is shown as often with harmless questions as with others; the game learns when."""
    shown = read_examples(str(SEEDS / "short-answers.jsonl"), "sft.path")
    seeds = {s.text for name in ("mild-train.jsonl", "mild-heldout.jsonl") for s in read_seeds(SEEDS / name, name)[0]}
    assert len(shown) == 64 and not seeds & {example.prompt for example in shown}
    assert all(len(example.response.split()) <= 20 for example in shown)
    declining = [e for e in shown if read_response(load_tables(), e.prompt, e.response).kind == "deflection"]
    assert len(declining) == 16
    assert sum(any(word in e.prompt for word in MISCHIEF) for e in declining) == 8
    assert not any(word in e.prompt for e in shown if e not in declining for word in MISCHIEF)


def test_they_are_short_questions_in_plain_letters() -> None:
    """A seed of many tokens would make every step of the demo dearer."""
    for name in ("mild-train.jsonl", "mild-heldout.jsonl"):
        for seed in read_seeds(SEEDS / name, name)[0]:
            assert seed.text.isascii() and seed.text.endswith("?") and len(seed.text.split()) <= 16, seed.text
