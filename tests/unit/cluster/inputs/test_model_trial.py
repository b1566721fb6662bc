"""A model folder is tried with its real tokenizer and template before Ray starts; whatever is wrong with it is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoTokenizer

from cluster.inputs.find import find_inputs
from cluster.inputs.model_trial import check_push, try_prompts
from cluster.inputs.recipe_file import load_recipe
from protocol.errors import UserError
from protocol.types import Message
from tests.integration.tiny_qwen import TEMPLATE, VOCABULARY, save_tiny
from tests.paths import ROOT

KEY, LIMIT = "models.attacker.path", ("generation.max_model_len", 2048)
CHATS: list[list[Message]] = [[{"role": "system", "content": "w1-"}, {"role": "user", "content": "w2- w3-"}]]
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "m", 0)
    return tmp_path / "m"


def attempt(folder: Path, chats: list[list[Message]] = CHATS) -> list[str]:
    said: list[str] = []
    try_prompts(str(folder), KEY, chats, LIMIT, said.append, {})
    return said


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_whole_folder_says_nothing(folder: Path) -> None:
    assert attempt(folder) == []
    check_push(str(folder), KEY)


def test_a_template_that_refuses_a_system_turn_gets_it_in_the_users(folder: Path) -> None:
    assert attempt(with_template(folder, NO_SYSTEM + TEMPLATE)) == []


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m['content'] }}", r"does not parse, at line 1: Unexpected end of template"),
        ("\n{{ messages[0]['content'] }", r"does not parse, at line 2: "),
        (
            NO_SYSTEM.replace("system", "user") + TEMPLATE,
            "takes no user turn: TemplateError: System role not supported",
        ),
        ("{{ messages[0].content.nothing.at_all }}", "takes no user turn: UndefinedError"),
        ("{{ messages[0]['content'] + 1 }}", "cannot write a user turn: TypeError"),
        ("hello", "leaves out what the user says"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(folder: Path, template: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"^models\.attacker\.path: \S+: .*{said}") as refused:
        attempt(with_template(folder, template))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "{}", '{"version": "1.0", "model": {"type": "none"}}'])
def test_a_tokenizer_that_cannot_be_loaded_is_one_line(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=r"^models\.attacker\.path: \S+: its tokenizer cannot be loaded \(") as refused:
        attempt(folder)
    assert "\n" not in str(refused.value)


def add_token(folder: Path, token: AddedToken) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == VOCABULARY
    tokenizer.add_tokens([token], special_tokens=token.special)
    tokenizer.save_pretrained(folder)


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_one_line(folder: Path) -> None:
    add_token(folder, AddedToken("new-", special=False))
    with pytest.raises(
        UserError,
        match=rf"its tokenizer has 1 ids that its embedding of {VOCABULARY} rows has none for, .* the first {VOCABULARY};",
    ):
        attempt(folder)


def test_an_id_without_a_row_that_no_prompt_can_hold_is_told_and_passes(folder: Path) -> None:
    """As Gemma 3 1B's `<image_soft_token>`."""
    add_token(folder, AddedToken("<image>", special=True))
    (said,) = attempt(folder)
    assert said.endswith("; they are special tokens that no prompt holds, so this does no harm")
    with pytest.raises(UserError, match="prompts may hold 1 of them"):
        attempt(with_template(folder, f"<image>{TEMPLATE}"))


def test_prompts_that_leave_no_room_are_one_line(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"the game's prompts take 30\d\d tokens and leave no room in generation\.max_model_len"
    ):
        attempt(folder, [[{"role": "user", "content": " w1-" * 3000}]])


def rename(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = folder / "model.safetensors"
    tensors = change(load_file(file))
    save_file(tensors, file, {"format": "pt"})


def test_parameters_that_the_folder_does_not_name_cannot_be_pushed(folder: Path) -> None:
    rename(folder, lambda tensors: {name.replace("q_proj", "query"): t for name, t in tensors.items()})
    with pytest.raises(
        UserError, match=r"would push a parameter model\.layers\.0\.self_attn\.q_proj\.\w+, which the folder's"
    ):
        check_push(str(folder), KEY)


def test_a_config_of_another_size_than_the_weights_is_one_line(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 256}))
    with pytest.raises(
        UserError, match=r"mlp\.\w+\.weight has the shape 128 x 64 in its weights and 256 x 64 by its config"
    ):
        check_push(str(folder), KEY)


def test_a_model_that_transformers_does_not_know_is_one_line(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "unheard_of"}))
    with pytest.raises(UserError, match=r"transformers cannot build this model \(\w+: .*unheard_of") as refused:
        check_push(str(folder), KEY)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("which", ["attacker", "defender"])
def test_both_players_are_tried_by_what_reads_a_recipe(which: str, tmp_path: Path) -> None:
    for player in ("attacker", "defender"):
        save_tiny(tmp_path / player, 0)
    with_template(tmp_path / which, "{% if %}")
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"prompt": "w1- w2-", "category": "benign"}\n')
    values = {
        **{f"models.{player}.path": tmp_path / player for player in ("attacker", "defender")},
        **{"seeds.train": seeds, "seeds.heldout": "null", "game.prompts": "standard"},
        **{"generation.max_model_len": 2048, "sampling.max_new_tokens": 64, "judge.kind": "none"},
        **{f"game.{key}": "false" for key in ("faithfulness", "attacker_judge", "defender_judge")},
    }
    recipe = load_recipe(ROOT / "deploy/recipes/sandbox.yaml", [f"{key}={value}" for key, value in values.items()])
    with pytest.raises(UserError, match=rf"^models\.{which}\.path: .* does not parse, at line 1"):
        find_inputs(recipe, lambda text: None)
