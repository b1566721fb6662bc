"""What is refused of a judge, of demonstrations and of seeds before anything is started."""

from pathlib import Path
from typing import Any

import pytest

from cluster.inputs.find import FoundJudge, _check_words, _check_world, find_inputs, find_judge
from cluster.sandbox.world import train_seeds
from judge.match.tables import load_tables
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from protocol.types import Seed


def judged(**judge: Any) -> Recipe:
    return parse_recipe({"judge": judge})


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        ({"kind": "lm", "rubrics": "nowhere"}, r"judge\.rubrics: 'nowhere' is neither a known set"),
        ({"kind": "lm", "model": "/no/such/folder"}, r"judge\.model: /no/such/folder is not a folder"),
        (
            {"kind": "api", "workers": 1, "api": {"base_url": "http://x/v1", "model": "m", "context": 2000}},
            r"judge\.api\.context: rubric \d+ \+ query 2048 .* the judge takes 2000",
        ),
        (
            {"kind": "api", "workers": 1, "api": {"base_url": "http://x/v1", "model": "m", "key_env": "ADVGAME_UNSET"}},
            r"judge\.api\.key_env: ADVGAME_UNSET",
        ),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_in_one_line(judge: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        find_judge(judged(**judge), lambda text: None)
    assert "\n" not in str(refused.value)


def test_judges_without_a_model_need_nothing_found() -> None:
    assert find_judge(judged(kind="rules"), pytest.fail) == FoundJudge()
    unjudged = {"faithfulness": False, "attacker_judge": False, "defender_judge": False}
    assert find_judge(parse_recipe({"judge": {"kind": "none"}, "game": unjudged}), pytest.fail) == FoundJudge()


def test_demonstrations_are_checked_before_anything_is_built(tmp_path: Path) -> None:
    missing = {"learners": {"defender": {"sft": {"path": str(tmp_path / "none.jsonl")}}}}
    with pytest.raises(UserError, match=r"learners\.defender\.sft\.path: .*none\.jsonl cannot be read"):
        find_inputs(parse_recipe(missing), pytest.fail)


def test_a_judge_of_the_sandbox_refuses_seeds_from_elsewhere() -> None:
    mine, others = train_seeds()[:8], [Seed(f"s{k}", "how do people fly", "benign") for k in range(3)]
    rules, held = Recipe(), parse_recipe({"judge": {"kind": "lm"}, "heldout": {"judge": "rules"}})
    _check_world(rules, mine, mine)
    with pytest.raises(
        UserError, match=r"^judge\.kind: rules knows the sandbox's world only, and 3 of the 11 seeds of"
    ):
        _check_world(rules, [*mine, *others], [])
    _check_world(held, others, mine)
    with pytest.raises(UserError, match=r"^heldout\.judge: rules knows .* 3 of the 3 seeds of seeds\.heldout"):
        _check_world(held, others, others)


def test_the_match_judge_is_named_with_its_tables_and_refuses_seeds_without_a_word_of_its() -> None:
    assert find_judge(judged(kind="match"), pytest.fail).rubrics == load_tables().rubric_names
    plain = [Seed(f"p{k}", "how do people fly", "benign") for k in range(7)]
    mute = [Seed(f"m{k}", "怎么办？", "benign") for k in range(3)]
    match, held = judged(kind="match"), parse_recipe({"judge": {"kind": "lm"}, "heldout": {"judge": "match"}})
    _check_words(match, plain, plain)
    _check_words(match, [*plain, *mute[:2]], [])
    with pytest.raises(UserError, match=r"^judge\.kind: match compares English words, and 3 of the 10 seeds of seeds"):
        _check_words(match, [*plain, *mute], [])
    _check_words(held, mute, plain)
    with pytest.raises(UserError, match=r"^heldout\.judge: match .* 3 of the 3 seeds of seeds\.heldout have none"):
        _check_words(held, plain, mute)
    _check_words(parse_recipe({"judge": {"kind": "match"}, "game": {"faithfulness": False}}), mute, mute)
    _check_words(parse_recipe({"judge": {"kind": "match"}, "heldout": {"judge": "rules"}}), plain, mute)
