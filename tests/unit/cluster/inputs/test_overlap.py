"""Held-out seeds that a run learns from are counted, and refused where nothing else is held out."""

import json
from pathlib import Path

import pytest

from cluster.inputs.find import find_inputs
from cluster.inputs.overlap import check_overlap
from protocol.errors import UserError
from protocol.recipe import parse_recipe
from protocol.types import Seed
from tests.unit.cluster.cli.test_cli import model_folder


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


@pytest.mark.parametrize("heldout", [("bread", "soup"), ("bread", "tea")])
def test_what_reads_a_recipe_refuses_the_same_seeds_and_tells_of_some(heldout: tuple[str, ...], tmp_path: Path) -> None:
    files = {"train": ("bread", "soup"), "heldout": heldout}
    for name, texts in files.items():
        lines = (json.dumps({"prompt": text, "category": "benign"}) + "\n" for text in texts)
        (tmp_path / name).write_text("".join(lines))
    folder = model_folder(tmp_path / "m")
    recipe = parse_recipe(
        {
            "models": {player: {"path": folder} for player in ("attacker", "defender")},
            "seeds": {name: str(tmp_path / name) for name in files},
            "generation": {"max_model_len": 4096},
            "sampling": {"max_new_tokens": 64},
            "judge": {"kind": "match"},
        }
    )
    said: list[str] = []
    # What comes after the seeds is the trial of a tokenizer, which this folder has not.
    wanted = "so nothing is held out" if heldout == ("bread", "soup") else "its tokenizer cannot be loaded"
    with pytest.raises(UserError, match=wanted):
        find_inputs(recipe, said.append)
    assert (heldout == ("bread", "soup")) or any("1 of the 2 are also in seeds.train" in line for line in said)
