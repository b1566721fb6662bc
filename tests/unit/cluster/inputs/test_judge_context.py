"""Whether the longest question fits into the judge's context."""

import pytest

from cluster.inputs.judge_context import check_judge_context
from judge.rubric import load_rubrics
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from protocol.types import Seed


def test_an_api_whose_context_is_known_is_checked_against_it() -> None:
    def recipe(context: int | None) -> Recipe:
        api = {"base_url": "http://localhost/v1", "model": "m", "context": context}
        return parse_recipe({"judge": {"kind": "api", "workers": 1, "api": api}})

    rubrics = load_rubrics("standard")
    check_judge_context(recipe(None), None, rubrics)
    check_judge_context(recipe(32_768), None, rubrics)
    with pytest.raises(UserError, match=r"judge\.api\.context: rubric \d+ \+ query 2048 .* the judge takes 8192"):
        check_judge_context(recipe(8192), None, rubrics)
    plain, long = Seed("a", "fix a bike", "benign"), Seed("b", "fix " * 20_000, "benign")
    check_judge_context(recipe(32_768), None, rubrics, [plain])
    with pytest.raises(UserError, match=r"query 266\d\d \+ 2 responses of 2048 .* or leave out the longest seeds"):
        check_judge_context(recipe(32_768), None, rubrics, [plain, long])
