"""What a recipe file may hold beyond what YAML allows, and paths as people write them."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from cluster.inputs.recipe_file import PATHS, load_recipe
from protocol.errors import UserError
from protocol.recipe import Recipe


def write(folder: Path, text: str) -> Path:
    file = folder / "r.yaml"
    file.write_text(text)
    return file


NINES = "".join(f"k{k + 1}: &k{k + 1} [{', '.join([f'*k{k}'] * 9)}]\n" for k in range(9))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "run:\n  steps: 3\n  seed: 1\n  steps: 4\n",
            r"r\.yaml line 4 has steps twice in one mapping, first at line 2; keep one",
        ),
        ("run: {seed: 1}\nrun: {steps: 3}\n", "line 2 has run twice in one mapping, first at line 1"),
        ("run: {seed: 1, seed: 1}\n", "line 1 has seed twice in one mapping, first at line 1"),
        ("run: &x {steps: 3}\njudge: {<<: *x, <<: *x}\n", "line 2 has << twice"),
        ("run: &x\n  name: *x\n", "line 1 has an alias inside of what it names; write its value out"),
        ("run: &x [1, [*x]]\n", "line 1 has an alias inside"),
        (f"k0: &k0 x\n{NINES}", "unfolds to more than 100000 values; write it without so many aliases"),
        ("run: " + "[" * 10_000, r"r\.yaml nests too deeply"),
        ("run: {name: a\x00b}", r"r\.yaml is no YAML \(special characters are not allowed\); mend it"),
        ("run: {steps: 2026-13-45}", "is no YAML"),
        ("run: {}\n---\nrun: {}\n", r"is no YAML \(but found another document\); mend it"),
        ("? [a]\n: b\n", r"is no YAML \(found unhashable key\)"),
    ],
)
def test_a_file_that_says_two_things_or_no_end_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        load_recipe(write(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_a_base_with_a_key_twice_is_named_itself(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("run: {seed: 1, seed: 2}")
    with pytest.raises(UserError, match=r"base\.yaml line 1 has seed twice"):
        load_recipe(write(tmp_path, "extends: base.yaml"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run={seed: 1, seed: 2}", "has seed twice in one mapping"),
        ("run=&x {seed: *x}", "has an alias inside"),
        ("run.seed=[", "is no YAML value; quote it"),
        ("run=" + "[" * 10_000, "nests too deeply"),
    ],
)
def test_so_is_a_value_on_the_command_line(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_recipe(write(tmp_path, ""), [override])


def test_aliases_and_merges_that_end_are_read(tmp_path: Path) -> None:
    text = "learners:\n  attacker: &a {lr: 0.1, clip: 2.0}\n  defender: {<<: *a, lr: 0.5}\n"
    learners = load_recipe(write(tmp_path, text)).learners
    assert (learners.attacker.lr, learners.defender.lr, learners.defender.clip) == (0.1, 0.5, 2.0)


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("run: {seed: 5}", encoding="utf-8-sig")
    assert load_recipe(tmp_path / "r.yaml").run.seed == 5


def value_at(recipe: Recipe, key: str) -> object:
    value: object = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("key", PATHS)
def test_the_home_folder_is_found_with_every_key_that_holds_a_path(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert value_at(load_recipe(write(tmp_path, ""), [f"{key}=~/mine"]), key) == "/home/me/mine"
    for path, said in (("~no-such-user/x", "~no-such-user is no user's home here"), ('"a\\0b"', "holds a NUL")):
        with pytest.raises(UserError, match=rf"^{key}: .*{said}"):
            load_recipe(write(tmp_path, ""), [f"{key}={path}"])


def test_the_home_folder_is_found_after_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("run: {seed: 5}")
    below = tmp_path / "below"
    below.mkdir()
    assert load_recipe(write(below, "extends: ~/base.yaml")).run.seed == 5


def test_every_path_of_a_recipe_is_among_those_that_are_expanded() -> None:
    def paths(section: BaseModel, at: str) -> set[str]:
        found: set[str] = set()
        for name, value in section:
            key = f"{at}{name}"
            if isinstance(value, BaseModel):
                found |= paths(value, f"{key}.")
            elif name in ("path", "file", "dir", "train", "heldout", "rubrics") and not isinstance(value, bool):
                found.add(key)
        return found

    assert paths(Recipe(), "") <= {*PATHS}, "a new key that holds a path belongs into PATHS"


@pytest.mark.parametrize("name", ["my seeds.jsonl", "seeds #2 final.jsonl", "it's.jsonl", "a,b.jsonl"])
def test_a_file_name_on_the_command_line_is_taken_whole(name: str, tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, ""), [f"seeds.train={name}"]).seeds.train == name


def test_a_comment_after_a_number_is_none_of_it(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, ""), ["run.seed=5 # mine"]).run.seed == 5
