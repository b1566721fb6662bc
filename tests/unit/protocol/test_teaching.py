"""A recipe that can teach a player nothing is refused; one that can, however little, is not. Tables by hand from GAME.md 2."""

import itertools
from typing import Any

import pytest

from protocol.errors import UserError
from protocol.recipe import parse_recipe
from protocol.recipe.teaching import PENALTY, SCORES, UNJUDGED, possible_rewards, untaught
from protocol.roles import PLAYERS

FROZEN: dict[str, Any] = {"train": False}
GRPO = {"loss": "grpo"}
UNJUDGED_GAME = {"faithfulness": False, "attacker_judge": False, "defender_judge": False}
NONE = {"kind": "none"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"game": {"attacks": 1}},
        "game.attacks: 1 with loss dpo teaches the attacker nothing, because it is compared with nothing else; set game.attacks to "
        "at least 2, or learners.attacker.train to false",
    ),
    ({"game": {"attacks": 1}, "learners": {"attacker": {"loss": "ipo"}}}, "game.attacks: 1 with loss ipo"),
    (
        {"game": {"attacks": 1}, "learners": {"attacker": GRPO}},
        "game.attacks: 1 with loss grpo teaches the attacker nothing, because it is compared with nothing else; set game.attacks "
        "to at least 2, learners.attacker.baseline to batch, or learners.attacker.train to false",
    ),
    ({"game": {"responses": 1}}, "game.responses: 1 with loss dpo teaches the defender nothing"),
    ({"game": {"responses": 1}, "learners": {"defender": GRPO}}, "game.responses: 1 with loss grpo"),
    (
        {"judge": NONE, "learners": {"defender": FROZEN}},
        "judge.kind: none teaches the attacker nothing, because every reward is -1; set judge.kind to rules, match, lm or api, "
        "learners.attacker.train to false, or each of game.faithfulness, game.attacker_judge and game.defender_judge to false",
    ),
    (
        {"judge": NONE, "learners": {"attacker": FROZEN}},
        "judge.kind: none teaches the defender nothing, because it is never asked",
    ),
    (
        {"judge": NONE, "learners": {"attacker": FROZEN}, "game": {"faithfulness": False}},
        "judge.kind: none teaches the defender nothing, because every reward is -1",
    ),
    (
        {"judge": NONE, "learners": {"defender": FROZEN}, "game": {"faithfulness": False, "attacker_judge": False}},
        "judge.kind: none teaches the attacker nothing, because every reward is -1",
    ),
    (
        {"generation": {"deadline_s": 100}},
        "generation.deadline_s: 100 is below generation.start_deadline_s 300, so a restart of a player's only worker may lose "
        "every game in flight; raise the first, lower the second, or set generation.workers to at least 2",
    ),
]
ACCEPTED: list[dict[str, Any]] = [
    {"game": {"attacks": 1}, "learners": {"attacker": FROZEN}},
    {"game": {"responses": 1}, "learners": {"defender": FROZEN}},
    {"game": {"attacks": 1}, "learners": {"attacker": GRPO | {"baseline": "batch"}}},
    {"game": {"attacks": 1}, "learners": {"attacker": GRPO}, "quirks": {"grpo_baseline": "paper"}},
    {"game": {"responses": 1}, "learners": {"defender": GRPO | {"baseline": "batch"}}},
    {"game": {"attacker_judge": False}},  # -1 and 0: form and meaning are learned
    {"game": {"defender_judge": False}},  # -1 and 0: to stop is learned, and a format where there is one
    {"judge": NONE, "game": UNJUDGED_GAME},
    {"judge": NONE, "game": UNJUDGED_GAME | {"attacker_judge": True}, "learners": {"attacker": FROZEN}},
    {"generation": {"deadline_s": 300}},
    {"generation": {"deadline_s": 100, "workers": 2}},
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[m[:60] for _, m in REFUSED])
def test_what_can_teach_nothing_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_recipe(values)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


@pytest.mark.parametrize("values", ACCEPTED, ids=str)
def test_what_can_teach_something_is_accepted(values: dict[str, Any]) -> None:
    assert not list(untaught(parse_recipe(values)))


def test_where_a_judge_answers_a_score_or_a_zero_stands_beside_the_penalty() -> None:
    for faithfulness, judged in itertools.product((True, False), repeat=2):
        recipe = parse_recipe(
            {"game": {"faithfulness": faithfulness, "attacker_judge": judged, "defender_judge": judged}}
        )
        for player in PLAYERS:
            assert possible_rewards(recipe, player) == {PENALTY, SCORES if judged else UNJUDGED}
