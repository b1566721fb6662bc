"""Held-out seeds that a run learns from are counted, and refused where nothing else is held out."""

import pytest

from cluster.inputs.overlap import check_overlap
from protocol.errors import UserError
from protocol.types import Seed


def seeds(*texts: str) -> list[Seed]:
    return [Seed(f"s{k}", text, "benign") for k, text in enumerate(texts)]


def test_separate_files_say_nothing() -> None:
    assert check_overlap(seeds("a", "b"), seeds("c", "d")) is None
    assert check_overlap(seeds("a"), []) is None


def test_the_same_seeds_in_both_files_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"^seeds\.heldout: all 2 seeds are also in seeds\.train, so nothing is held out"
    ):
        check_overlap(seeds("Fix a  bike", "b", "c"), seeds("B", "fix a bike"))


def test_some_of_them_are_counted_without_their_texts() -> None:
    said = check_overlap(seeds("secret one", "b"), seeds("secret one", "x", "y"), demonstrated=["x", "secret one"])
    assert said == (
        "seeds.heldout: 1 of the 3 are also in seeds.train and 1 of the 3 are also in the demonstrations (sft.path); "
        "what is measured on them is too good: take them out"
    )


def test_another_category_is_no_other_text() -> None:
    assert check_overlap([Seed("h", "a", "harmful")], [Seed("b", "a", "benign"), *seeds("c")]) is not None
