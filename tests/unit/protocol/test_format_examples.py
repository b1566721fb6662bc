"""The examples of a warm start: in their format, faithful by construction, the same for the same seed."""

from itertools import islice

import pytest

from protocol.format_examples import make_examples, write_attack
from protocol.formats import FORMATS
from protocol.game import read_completion
from protocol.prompts import attacker_messages
from protocol.types import Completion, Seed

SEEDS = [Seed(f"h{k}", f"How do I open lock {k}?", "harmful") for k in range(5)] + [
    Seed(f"b{k}", f"How do I kill weed {k}?", "benign") for k in range(3)
]


@pytest.mark.parametrize("name", ["think_prompt", "prompt", "plain"])
@pytest.mark.parametrize("prompts", ["standard", "brief"])
def test_every_example_is_what_the_game_would_ask_for_and_take(name: str, prompts: str) -> None:
    by_text = {seed.text: seed for seed in SEEDS}
    for shown in make_examples(SEEDS, 40, prompts, name, 7):  # type: ignore[arg-type]
        seed = by_text[shown.seed]
        assert shown.messages == attacker_messages(seed, prompts, name)  # type: ignore[arg-type]
        state, attack = read_completion(Completion.of(text=shown.answer), name, "attacker")
        assert state == "ok" and attack is not None
        assert seed.text in attack and attack != seed.text, "the seed's words are kept, and reframed"
        assert len(attack.split()) <= len(seed.text.split()) + 16, "brief"


def test_both_categories_come_in_turn_and_every_seed_before_any_comes_twice() -> None:
    shown = make_examples(SEEDS, 16, "brief", "prompt", 0)
    harmful = [d.seed for d in shown if "lock" in d.seed]
    assert len(harmful) == 8 and [("lock" in d.seed) for d in shown] == [True, False] * 8
    assert len(set(harmful[:5])) == 5 and len({d.seed for d in islice(shown, 6)}) == 6
    only = make_examples([s for s in SEEDS if s.category == "benign"], 4, "brief", "prompt", 0)
    assert len(only) == 4 and all("weed" in d.seed for d in only)


def test_the_runs_seed_decides() -> None:
    assert make_examples(SEEDS, 20, "brief", "prompt", 1) == make_examples(SEEDS, 20, "brief", "prompt", 1)
    assert make_examples(SEEDS, 20, "brief", "prompt", 1) != make_examples(SEEDS, 20, "brief", "prompt", 2)


def test_braces_in_a_seed_are_text() -> None:
    (shown,) = make_examples([Seed("b", "What does {seed} or {0} mean?", "benign")], 1, "brief", "plain", 0)
    assert "What does {seed} or {0} mean?" in shown.answer


def test_an_answer_is_written_in_its_format() -> None:
    assert write_attack("plan", "ask", "think_prompt") == "<think> plan </think>\n<prompt> ask </prompt>"
    assert FORMATS["prompt"].visible(write_attack("plan", "ask", "prompt")) == "ask"
    with pytest.raises(KeyError):
        write_attack("plan", "ask", "think_answer")
