"""Targets of `evaluate`: model folders, runs, checkpoints and addresses."""

import json
from pathlib import Path

import pytest

from cluster.inputs.recipe_file import load_recipe
from cluster.inputs.target_endpoint import EndpointOptions
from cluster.inputs.targets import (
    find_checkpoints,
    find_target,
    name_targets_apart,
    read_manner,
)
from protocol.errors import UserError
from protocol.types import Sampling
from tests.paths import RECIPES
from tests.unit.cluster.cli.test_cli import model_folder

SANDBOX = load_recipe(RECIPES / "sandbox.yaml")
NO_OPTIONS = EndpointOptions()


def make_run(folder: Path, export: bool = True, trained: bool = True, steps: tuple[int, ...] = ()) -> Path:
    folder.mkdir()
    base = model_folder(folder / "base")
    (folder / "recipe.yaml").write_text(
        f"models: {{attacker: {{path: {base}}}, defender: {{path: {base}}}}}\n"
        f"generation: {{max_model_len: 400}}\nlearners: {{defender: {{train: {str(trained).lower()}}}}}\n"
        "sampling: {max_new_tokens: 40}\nheldout: {temperature: 0.5, top_p: 0.8}\n"
    )
    if export:
        (folder / "export").mkdir()
        model_folder(folder / "export" / "defender")
    for step in steps:
        kept = folder / "checkpoints" / "defender" / f"step-{step}"
        kept.mkdir(parents=True)
        (kept / "checkpoint.json").write_text(
            json.dumps({"step": step, "version": step, "world_size": 1, "lora": None})
        )
    return folder


def test_a_folder_is_named_by_itself_and_its_engine_is_no_longer_than_it_takes(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny")
    target = find_target(folder, "TARGET", None, NO_OPTIONS)
    assert target.name == "tiny" and target.identity.startswith("folder tiny ") and target.engine is not None
    assert target.engine.max_model_len == 4096  # the folder's limit; the recipe's default is longer
    short = find_target(folder, "TARGET", SANDBOX, NO_OPTIONS).engine
    assert short is not None and short.max_model_len == 128  # the recipe's


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "bad", "config.json")
    with pytest.raises(UserError, match=r"--against: .*/bad has no config.json"):
        find_target(folder, "--against", None, NO_OPTIONS)


def test_a_run_is_its_exported_defender_or_a_frozen_one_as_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    target = find_target(str(run), "TARGET", None, NO_OPTIONS)
    assert (target.name, target.folder) == ("run", run / "export" / "defender")
    assert target.engine is not None and target.engine.max_model_len == 400 and target.trained_by is not None
    frozen = make_run(tmp_path / "frozen", export=False, trained=False)
    assert find_target(str(frozen), "TARGET", None, NO_OPTIONS).folder == frozen / "base"


def test_a_runs_template_arguments_are_its_own_and_a_folders_the_asking_recipes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(50,))
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("defender: {path:", "defender: {template_arguments: {a: 1}, path:"))
    own = find_target(str(run), "TARGET", SANDBOX, NO_OPTIONS)
    assert own.template_arguments == {"a": 1} and own.identity.endswith(' template arguments {"a": 1}')
    assert all(target.template_arguments == {"a": 1} for target in find_checkpoints(str(run), "TARGET", SANDBOX))
    base = find_target(str(run / "base"), "--against", load_recipe(recipe), NO_OPTIONS)
    assert base.template_arguments == {"a": 1}
    assert find_target(str(run / "base"), "TARGET", SANDBOX, NO_OPTIONS).template_arguments == {}


def test_a_run_without_an_export_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no export of the Defender yet .* or give --checkpoints"):
        find_target(str(make_run(tmp_path / "run", export=False)), "TARGET", None, NO_OPTIONS)


def test_all_checkpoints_of_a_run_in_their_order_between_start_and_export(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(100, 50))
    targets = find_checkpoints(str(run), "TARGET")
    assert [t.name for t in targets] == ["run:start", "run:step-50", "run:step-100", "run:export"]
    kept = targets[1].checkpoint
    assert kept is not None and targets[1].folder is None
    assert (kept.base, kept.dtype, kept.sampler) == (run / "base", "bfloat16", "ema")
    assert len({t.identity for t in targets}) == 4 and all(t.engine is not None for t in targets)
    with pytest.raises(UserError, match="has no checkpoint of the Defender yet"):
        find_checkpoints(str(make_run(tmp_path / "new")), "TARGET")


def test_an_address_is_a_url_and_a_model() -> None:
    target = find_target("http://localhost:8000/v1#org/model", "TARGET", None, EndpointOptions("", 4, 2, 9.0))
    assert target.name == "org/model" and target.api is not None and target.folder is None
    api = target.api
    assert (api.base_url, api.model, api.key_env) == ("http://localhost:8000/v1", "org/model", "")
    assert (api.concurrency, api.retries, api.timeout_s) == (4, 2, 9.0)


def test_a_key_is_sent_only_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    unnamed = find_target("http://h/v1#m", "TARGET", None, NO_OPTIONS).api
    assert unnamed is not None and unnamed.key_env == ""
    named = find_target("http://h/v1#m", "TARGET", None, EndpointOptions("OPENAI_API_KEY")).api
    assert named is not None and named.key_env == "OPENAI_API_KEY"


def test_names_are_told_apart() -> None:
    same = find_target("http://h/v1#m", "TARGET", None, NO_OPTIONS)
    assert [t.name for t in name_targets_apart([same, same])] == ["m", "m-2"]


def test_models_are_asked_as_in_the_recipes_held_out_measurement_unless_told_otherwise() -> None:
    assert read_manner(SANDBOX, {}).sampling == Sampling(0.6, 1.0, 48, True)
    told = read_manner(SANDBOX, {"temperature": 0.0, "top_p": None, "max_new_tokens": 9}).sampling
    assert told == Sampling(0.0, 1.0, 9, True)
