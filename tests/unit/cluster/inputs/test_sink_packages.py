"""A sink that cannot be written to from here is refused before anything starts; secrets are no keys of a recipe."""

from typing import Any

import pytest

from cluster.inputs.recipe_file import with_absolute_paths
from cluster.inputs.sink_packages import PACKAGES, check_sinks
from cluster.plan.sinks import plan_sinks
from protocol.errors import UserError
from protocol.recipe import SinksConfig, parse_recipe


def sinks(**values: Any) -> SinksConfig:
    return SinksConfig.model_validate(values)


def recipe(**values: Any) -> Any:
    return parse_recipe({"observe": {"sinks": values}})


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_one_line_with_its_remedy(name: str) -> None:
    module, package = PACKAGES[name]
    with pytest.raises(UserError) as refused:
        check_sinks(sinks(**{name: {}}), {"WANDB_API_KEY": "x"}, lambda asked: None if asked == module else asked)
    assert str(refused.value) == (
        f"observe.sinks.{name}: the package {package} is not installed here; pip install {package}, or leave "
        f"observe.sinks.{name} out"
    )
    check_sinks(sinks(**{name: {}}), {"WANDB_API_KEY": "x"}, lambda asked: asked)
    check_sinks(sinks(), {}, lambda asked: None)


def test_wandb_online_needs_its_key_from_the_environment() -> None:
    with pytest.raises(
        UserError, match=r"^observe\.sinks\.wandb\.mode: online needs WANDB_API_KEY.*set .* to offline$"
    ):
        check_sinks(sinks(wandb={}), {}, lambda asked: asked)
    check_sinks(sinks(wandb={"mode": "offline"}), {}, lambda asked: asked)


@pytest.mark.parametrize("uri", ["https://me:hunter2@server", "postgresql://server/db?password=hunter2"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UserError, match=r"^observe\.sinks\.mlflow\.tracking_uri: it holds a user") as refused:
        recipe(mlflow={"tracking_uri": uri})
    assert "hunter2" not in str(refused.value)


def test_an_unknown_key_of_a_sink_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"did you mean observe\.sinks\.wandb\.project\?"):
        recipe(wandb={"projct": "x"})


def test_a_folder_is_kept_absolute_and_a_server_as_it_is() -> None:
    for given, kept in (("store", None), ("http://server:5000", "http://server:5000")):
        found = with_absolute_paths(recipe(mlflow={"tracking_uri": given})).observe.sinks.mlflow
        assert found is not None and found.tracking_uri is not None
        assert found.tracking_uri == kept if kept else found.tracking_uri.startswith("/")


def test_the_facts_of_a_recipe_are_numbers_and_words_and_name_no_place() -> None:
    values = {
        "models": {"attacker": {"path": "/secret/place/qwen"}, "defender": {"path": "sandbox"}},
        "seeds": {"train": "/secret/place/seeds.jsonl"},
        "observe": {"sinks": {"tensorboard": {}}},
        "learners": {"defender": {"sft": {"path": "/secret/place/sft.jsonl", "weight": 0.1}}},
    }
    plan = plan_sinks(parse_recipe(values))
    assert plan.config.named == ("tensorboard",)
    assert plan.facts["models.attacker"] == "qwen" and plan.facts["run.steps"] == 1000
    assert plan.facts["learners.defender.betas"] == "0.9, 0.95" and plan.facts["game.optimistic"] is True
    assert not [key for key, value in plan.facts.items() if "/secret" in str(value) or "observe" in key]
