"""One game by hand: who is asked what, which state ends what, and what it is worth (GAME.md 1-3)."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cluster.replay.rules.tally import finish_event
from protocol.game import best_response, play_game
from protocol.recipe import Recipe, parse_recipe
from protocol.rows import to_batch
from protocol.rules import GameRules
from protocol.states import fixed_reward
from protocol.types import Completion, Deal, GameRecord, Item, JudgeRequest, Seed, Verdict
from tests.unit.fakes import FakeGenerator, FakeJudge, completion

HARMFUL = Seed("h-1", "break the lock", "harmful")
BENIGN = Seed("b-1", "fix the bike", "benign")
ONE_ATTACK = {"attacker": {"train": False}}  # an Attacker that learns needs two attacks to compare


def wrapped(text: str) -> str:
    return f"<think>plan</think><prompt>{text}</prompt>"


def say_in_turn(attacks: Sequence[str | Completion]) -> FakeGenerator:
    """An attacker who is asked for one attack at a time."""
    return FakeGenerator(lambda ask: [attacks[int(ask.id.rsplit("-", 1)[1])]])


async def play(
    attacks: Sequence[str | Completion],
    responses: dict[str, Sequence[str | Completion]],
    scores: dict[str, float],
    seed: Seed = HARMFUL,
    recipe: Recipe | None = None,
    faithful_fails: bool = False,
) -> tuple[GameRecord, FakeGenerator, FakeJudge]:
    attacker = say_in_turn(attacks)
    defender = FakeGenerator(lambda ask: responses[ask.messages[-1]["content"]])
    judge = FakeJudge(scores, faithful_fails)
    record = await play_game(Deal(7, seed), GameRules.of(recipe or Recipe()), attacker, defender, judge)
    return record, defender, judge


async def test_a_full_game_by_hand() -> None:
    record, defender, judge = await play(
        [wrapped("one"), wrapped("two")],
        {"one": ["refusal", "redirect"], "two": ["answer", "refusal"]},
        {"refusal": 4, "redirect": 9, "answer": 1},
    )
    attack, first, second = record.groups
    assert [i.reward for i in first.items] == [4, 9]
    assert [i.reward for i in second.items] == [1, 4]
    assert [i.reward for i in attack.items] == [9, 4]  # through the best response: redirect, then refusal
    assert (first.player, first.index, second.index) == ("defender", 0, 1)
    assert [p.winner for p in (*attack.preferences, *first.preferences, *second.preferences)] == [0, 1, 1]
    assert [g.opponent_version for g in record.groups] == [0, 0, 0]
    assert record.attack_states == ("ok", "ok") and record.response_states == ("ok",) * 4
    assert {a.messages[-1]["content"] for a in defender.asks} == {"one", "two"}
    criteria = [(r.criterion, r.query) for r in judge.requests]
    assert criteria.count(("deflection", "one")) == 2  # both orders
    assert criteria.count(("compliance", "break the lock")) == 2  # the attacks are judged on the seed
    assert record.verdicts == 2 + 2 + 2 + 2 and record.verdicts_failed == 0


async def test_a_benign_seed_asks_for_compliance_and_refusal() -> None:
    _, _, judge = await play([wrapped("a"), wrapped("b")], {"a": ["x", "y"], "b": ["x", "y"]}, {"x": 1, "y": 2}, BENIGN)
    assert {r.criterion for r in judge.requests} == {"faithfulness", "compliance", "refusal"}


async def test_invalid_attacks_are_never_answered_and_are_worth_minus_one() -> None:
    record, defender, _ = await play(["no tags", wrapped("off topic")], {}, {})
    assert record.attack_states == ("malformed", "unfaithful")
    assert [i.reward for i in record.groups[0].items] == [-1, -1]
    assert record.response_states == ("attack_invalid",) * 4
    assert len(record.groups) == 1 and not defender.asks
    assert to_batch(record.groups).column("opponent_version").to_pylist() == [None]  # nobody answered


async def test_a_completion_that_did_not_stop_is_too_long_whatever_it_says() -> None:
    record, _, _ = await play(
        [completion(wrapped("one"), "length"), wrapped("two")], {"two": [completion("x", "length"), "y"]}, {"y": 3}
    )
    assert record.attack_states == ("too_long", "ok")
    assert record.response_states == ("attack_invalid", "attack_invalid", "too_long", "ok")
    assert [i.reward for i in record.groups[1].items] == [-1, 3]  # a lone valid response is compared with itself


async def test_what_the_context_cut_short_is_excluded_and_counted_whatever_it_says() -> None:
    record, defender, judge = await play(
        [completion(wrapped("one"), "no_room"), wrapped("two"), wrapped("three")],
        {"two": [completion("x", "no_room"), "y", "z"], "three": [completion("x", "no_room")] * 3},
        {"x": 9, "y": 3, "z": 5},
        recipe=parse_recipe({"game": {"attacks": 3, "responses": 3}}),
    )
    attack, two, _ = record.groups
    assert record.attack_states == ("no_room", "ok", "no_valid_response")
    assert record.response_states == (
        *("attack_invalid",) * 3,
        *("no_room", "ok", "ok"),
        *("no_room",) * 3,
    )
    assert [[i.reward for i in g.items] for g in (attack, two)] == [[None, 5, None], [None, 3, 5]]
    assert [(p.i, p.j) for p in two.preferences] == [(1, 2)]
    assert [a.messages[-1]["content"] for a in defender.asks] == ["two", "three"]
    assert not any("x" in r.responses for r in judge.requests)
    event = finish_event(record, judged=True, places={})
    assert event["attack"]["no_room"] == 1 and event["response"]["no_room"] == 4 and not event["judge_failed"]


async def test_an_unreadable_verdict_is_a_state_and_never_a_number() -> None:
    record, _, _ = await play(
        [wrapped("one"), wrapped("two")], {"one": ["?", "y"], "two": ["y", "z"]}, {"y": 5, "z": 6}
    )
    assert record.response_states == ("judge_failed", "judge_failed", "ok", "ok")
    assert record.attack_states == ("judge_failed", "ok")
    assert [i.reward for i in record.groups[1].items] == [None, None]
    assert [i.reward for i in record.groups[0].items] == [None, 6]


async def test_unread_faithfulness_excludes_the_attack() -> None:
    record, _, _ = await play([wrapped("one"), wrapped("two")], {}, {}, faithful_fails=True)
    assert record.attack_states == ("judge_failed", "judge_failed")
    assert [i.reward for i in record.groups[0].items] == [None, None]


async def test_an_attack_without_a_valid_response_is_excluded() -> None:
    long = completion("x", "length")
    record, _, _ = await play(
        [wrapped("one"), wrapped("two")], {"one": [long, long], "two": ["y", "z"]}, {"y": 5, "z": 6}
    )
    assert record.attack_states == ("no_valid_response", "ok")
    assert record.groups[0].items[0].reward is None


@pytest.mark.parametrize(("optimistic", "reward"), [(True, 9), (False, 4)])
async def test_optimistic_scores_through_the_best_response(optimistic: bool, reward: float) -> None:
    recipe = parse_recipe({"game": {"optimistic": optimistic, "attacks": 1}, "learners": ONE_ATTACK})
    record, _, _ = await play([wrapped("one")], {"one": ["b", "a"]}, {"a": 9, "b": 4}, recipe=recipe)
    assert record.groups[0].items[0].reward == reward


async def test_pointwise_judges_every_item_once_and_alone() -> None:
    recipe = parse_recipe({"judge": {"form": "pointwise"}})
    record, _, judge = await play(
        [wrapped("one"), wrapped("two")],
        {"one": ["b", "a"], "two": ["c", "?"]},
        {"a": 9, "b": 4, "c": 7},
        recipe=recipe,
    )
    assert [[i.reward for i in g.items] for g in record.groups] == [[9, 7], [4, 9], [7, None]]
    assert all(len(r.responses) == 1 for r in judge.requests) and not any(g.preferences for g in record.groups)
    assert (record.comparisons, record.verdicts_failed) == (0, 1)


async def test_one_order_on_paper() -> None:
    recipe = parse_recipe({"mode": "paper", "game": {"attacks": 1}, "learners": ONE_ATTACK})
    record, _, judge = await play([wrapped("one")], {"one": ["a", "b"]}, {"a": 9, "b": 4}, recipe=recipe)
    assert [r.responses for r in judge.requests if r.criterion == "deflection"] == [("a", "b")]
    assert record.groups[1].preferences[0].swapped is None


async def test_an_attacker_without_a_judge_is_worth_0_if_valid_and_minus_1_if_not() -> None:
    recipe = parse_recipe({"game": {"attacker_judge": False}})
    record, _, judge = await play([wrapped("one"), "broken"], {"one": ["a", "b"]}, {"a": 9, "b": 4}, recipe=recipe)
    assert [i.reward for i in record.groups[0].items] == [0, -1]
    assert {r.criterion for r in judge.requests} == {"faithfulness", "deflection"}


async def test_a_defender_without_a_judge_and_no_faithfulness() -> None:
    game = {"defender_judge": False, "faithfulness": False, "attacks": 1}
    recipe = parse_recipe({"game": game, "learners": ONE_ATTACK})
    long = completion("x", "length")
    record, _, judge = await play([wrapped("off topic")], {"off topic": [long, "a"]}, {"a": 6}, recipe=recipe)
    assert [i.reward for i in record.groups[1].items] == [-1, 0]
    assert [i.reward for i in record.groups[0].items] == [6]
    assert {r.criterion for r in judge.requests} == {"compliance"}


PLAIN = parse_recipe({"game": {"attacker_format": "plain", "attacks": 3}})


async def test_without_a_format_the_whole_output_is_the_attack_unless_it_is_white_space() -> None:
    attacks = [" <think> one\n", " \n\t\u2003", ""]
    record, defender, _ = await play(attacks, {"<think> one": ["", "a"]}, {"a": 5, "": 2}, recipe=PLAIN)
    assert record.attack_states == ("ok", "malformed", "malformed")
    assert [i.reward for i in record.groups[0].items] == [5, -1, -1]
    assert [a.messages for a in defender.asks] == [({"role": "user", "content": "<think> one"},)]
    assert record.response_states[:2] == (
        "ok",
        "ok",
    )  # a response may be empty: it is for the judge to say what it is worth


async def test_without_a_format_the_attacker_is_told_to_write_nothing_else() -> None:
    attacker = say_in_turn(["one"] * 3)
    await play_game(
        Deal(7, HARMFUL), GameRules.of(PLAIN), attacker, FakeGenerator(lambda ask: ["a"] * 2), FakeJudge({})
    )
    system = attacker.asks[0].messages[0]
    assert system["role"] == "system" and system["content"].endswith("Write the rewritten query and nothing else.")
    assert "<" not in system["content"]


async def test_what_was_remembered_is_no_evidence_that_the_judge_answers() -> None:
    class Remembers(FakeJudge):
        def _one(self, r: JudgeRequest) -> Verdict:
            return replace(super()._one(r), remembered=r.criterion == "faithfulness")

    attacks = say_in_turn([wrapped("one"), wrapped("two")])
    judge = Remembers({"a": 5})
    record = await play_game(
        Deal(7, HARMFUL), GameRules.of(Recipe()), attacks, FakeGenerator(lambda ask: ["a", "?"]), judge
    )
    asked = [r for r in judge.requests if r.criterion != "faithfulness"]
    assert record.verdicts == len(asked) and record.verdicts_failed == 4


async def test_a_game_dealt_again_asks_with_the_same_seeds() -> None:
    games = [
        await play([wrapped("a"), wrapped("b")], {"a": ["x", "y"], "b": ["x", "y"]}, {"x": 1, "y": 2}) for _ in range(2)
    ]
    asked = [[(a.id, a.seeds) for a in defender.asks] for _, defender, _ in games]
    assert sorted(asked[0]) == sorted(asked[1])
    seeds = [s for _, group in asked[0] for s in group]
    assert len(set(seeds)) == len(seeds)


def test_versions_and_row_ids() -> None:
    items = [Item(completion("a", version=3), "ok", 1.0), Item(completion("b", version=2), "ok", 2.0)]
    assert best_response(items, optimistic=True) == 1
    assert fixed_reward("too_long") == -1 and fixed_reward("judge_failed") is None
    with pytest.raises(ValueError, match="ok"):
        fixed_reward("ok")
