"""What a model folder says of itself, and what stays unknown."""

from pathlib import Path

import pytest

from learners.storage.base import BaseModel, read_base
from tests.paths import ROOT

CARD = """---
license: other
license_name: acme
license_link: LICENSE
language: [en, de]
base_model: acme/seven
tags: [x]
---
# Seven
"""


def folder(tmp_path: Path, card: str | None, name: str = "Seven 7B") -> Path:
    made = tmp_path / name
    made.mkdir(parents=True)
    if card is not None:
        (made / "README.md").write_text(card)
    return made


def test_license_languages_and_ancestor_come_from_its_card(tmp_path: Path) -> None:
    base = read_base(folder(tmp_path, CARD))
    license = {"license": "other", "license_name": "acme", "license_link": "LICENSE"}
    assert base == BaseModel("Seven-7B", "acme/seven", license, ("en", "de"))
    assert base.published == "acme/seven"


def test_the_hubs_cache_gives_the_hubs_name(tmp_path: Path) -> None:
    base = read_base(folder(tmp_path, None, "hub/models--Qwen--Qwen2.5-7B-Instruct/snapshots/a09a35458c70"))
    assert base.name == base.published == "Qwen/Qwen2.5-7B-Instruct" and base.license == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ((ROOT / "LICENSE").read_text(), {"license": "apache-2.0"}),
        (
            "ACME COMMUNITY LICENSE\nNot the Apache License Version 2.0, January 2004",
            {"license": "other", "license_name": "see-license-file", "license_link": "LICENSE.txt"},
        ),
    ],
)
def test_a_license_that_only_lies_beside_the_weights_is_found(text: str, told: dict[str, str], tmp_path: Path) -> None:
    made = folder(tmp_path, None, "seven")
    (made / "LICENSE.txt").write_text(text)
    assert read_base(made).license == told
    (made / "README.md").write_text("---\nlicense: mit\n---\n")
    assert read_base(made).license == {"license": "mit"}, "its card knows better"


@pytest.mark.parametrize(
    "card",
    [
        None,
        "# no front matter\n",
        "---\n: [\n---\n",
        "---\n- a list\n---\n",
        "---\nlicense: [mit, gpl]\nlicense_name: x\nlanguage: 7\nbase_model: [a/b, c/d]\n---\n",
        "---\nbase_model: /home/somebody/model\n---\n",
    ],
)
def test_what_it_does_not_say_is_unknown(tmp_path: Path, card: str | None) -> None:
    assert read_base(folder(tmp_path, card, "seven")) == BaseModel("seven")


def test_of_a_folder_that_is_gone_the_name_is_left(tmp_path: Path) -> None:
    assert read_base(tmp_path / "gone") == BaseModel("gone")
