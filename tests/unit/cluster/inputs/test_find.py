"""What is refused of a judge, of demonstrations and of seeds before anything is started."""

from pathlib import Path
from typing import Any

import pytest

from cluster.inputs.find import FoundJudge, _check_world, find_inputs, find_judge
from cluster.sandbox.world import train_seeds
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
