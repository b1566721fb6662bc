"""The plan: what is decided, that it is whole, and that every shipped recipe has one."""

import json
import random
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.inputs.find import own_dtype
from cluster.inputs.recipe_file import load_recipe
from cluster.plan.drawing import draw_plan, plan_json
from cluster.plan.placement import Bundle, Placement
from cluster.plan.plan import settle_every
from protocol.recipe import Recipe, parse_recipe
from protocol.roles import PLAYERS
from tests.paths import RECIPES
from tests.unit.cluster.plan.plans import parse_plan, plan_of


@pytest.mark.parametrize("file", sorted(RECIPES.rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_recipe_has_a_plan_that_can_be_drawn_and_written(file: Path) -> None:
    recipe = load_recipe(file)
    plan = plan_of(recipe)
    written = json.loads(json.dumps(plan_json(plan), allow_nan=False))
    roles = [bundle["role"] for bundle in written["bundles"]]
    assert roles.count("replay-0") == roles.count("publisher-0") == roles.count("rollout-0") == 1
    assert sum(role.startswith("generation-defender-") for role in roles) == recipe.generation.workers
    assert sum(role.startswith("judge-") for role in roles) == recipe.judge.workers
    assert set(written["learners"]) == set(recipe.trained)
    ranks = [spec.config.ranks * spec.config.gpus_per_rank for spec in plan.learners.values()]
    assert plan.demand.gpus == pytest.approx(sum(b.gpus for b in plan.placement.bundles) + sum(ranks))
    console = Console(width=132, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(draw_plan(plan))
    drawn = console.export_text()
    assert all(role in drawn for role in roles)


def test_a_part_finds_its_bundle_by_its_role_in_whatever_order_they_are() -> None:
    plan = parse_plan({"generation": {"workers": 2, "gpus_per_worker": 0.5}})
    shuffled = list(plan.placement.bundles)
    random.Random(1).shuffle(shuffled)
    moved = Placement(tuple(shuffled))
    for bundle in plan.placement.bundles:
        assert moved.bundles[moved.index_of(bundle.role)] == bundle
    with pytest.raises(KeyError):
        moved.index_of("judge-99")
    with pytest.raises(ValueError, match="two bundles"):
        Placement((Bundle("a", 1.0), Bundle("a", 2.0)))


def test_a_plan_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        parse_plan({}).seed = 1  # type: ignore[misc]


def test_the_judges_key_changes_with_the_judge_and_with_its_rubrics() -> None:
    judge = {"judge": {"kind": "lm", "model": "/models/judge"}}
    first = parse_plan(judge).judge
    assert first.key == "lm:judge@1a2b3c4d compliance@1/abc" and first.admits is None
    assert parse_plan(judge, rubrics=("compliance@2/abd",)).judge.key != first.key
    assert first.judge_id == "lm:judge@1a2b3c4d"
    assert parse_plan(judge, judge_digest="ffffffff").judge.key != first.key  # another folder of that name
    api = {"kind": "api", "workers": 1, "api": {"base_url": "http://x/v1", "model": "m", "concurrency": 7}}
    assert parse_plan({"judge": api}).judge.admits == 7


@pytest.mark.parametrize(
    ("values", "own", "wire"),
    [
        ({}, "float32", "float32"),
        ({}, "bfloat16", "bfloat16"),
        ({"generation": {"dtype": "bfloat16"}}, "float32", "bfloat16"),
        ({"generation": {"dtype": "bfloat16"}, "push": {"dtype": "float32"}}, "bfloat16", "float32"),
    ],
)
def test_what_travels_is_the_recipes_dtype_else_the_engines_else_the_models_own(
    values: dict[str, Any], own: str, wire: str
) -> None:
    plan = parse_plan(values, dtypes=dict.fromkeys(PLAYERS, own))
    assert {spec.push_dtype for spec in plan.learners.values()} == {wire}


@pytest.mark.parametrize(
    ("config", "dtype"), [({"dtype": "float32"}, "float32"), ({"torch_dtype": "float16"}, "bfloat16"), ({}, "bfloat16")]
)
def test_a_model_folders_own_dtype(tmp_path: Path, config: dict[str, str], dtype: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert own_dtype(str(tmp_path)) == dtype


def test_a_frozen_player_has_no_learner_and_no_transport() -> None:
    plan = parse_plan({"learners": {"attacker": {"train": False}}})
    assert plan.trained == tuple(plan.learners) == tuple(plan.transports) == ("defender",)
    assert plan.replay.admission.trained == ("defender",)


def test_the_longest_game_waits_for_an_endpoints_attempts_too() -> None:
    values = {"generation": {"deadline_s": 10, "start_deadline_s": 10}, "judge": {"attempts": 2, "deadline_s": 5}}
    assert parse_plan(values).replay.game_limit_s == 2 * 10 + 3 * 2 * 5
    api = {"base_url": "http://x/v1", "model": "m", "retries": 1, "timeout_s": 4}
    values["judge"] |= {"kind": "api", "workers": 1, "api": api}
    assert parse_plan(values).replay.game_limit_s == 2 * 10 + 3 * 2 * (5 + 2 * 4)


def test_an_alarm_never_rises_where_there_is_no_judge() -> None:
    unjudged = {"faithfulness": False, "attacker_judge": False, "defender_judge": False}
    assert parse_plan({"judge": {"kind": "none"}, "game": unjudged}).replay.alarm.failure_rate == 1.0
    assert parse_plan({}).replay.alarm == Recipe().judge.alarm


def test_the_learners_spec_is_whole(tmp_path: Path) -> None:
    plan = parse_plan({"run": {"steps": 7, "seed": 3}, "push": {"every": 2, "stage_mib": 8}}, tmp_path / "b")
    spec = plan.learners["attacker"]
    assert (spec.steps, spec.run_seed, spec.push_every, spec.stage_mib) == (7, 3, 2, 8)
    assert spec.model_path == "/models/attacker" and spec.run_dir == str(tmp_path / "b")
    assert replace(spec, player="defender", model_path="/models/defender") == replace(plan.learners["defender"])


@pytest.mark.parametrize(
    ("values", "every"),
    [
        ({}, 0),
        ({"learners": {"alternate_every": 5}}, 5),
        ({"replay": {"max_staleness": 0}}, 1),
        ({"replay": {"max_staleness": 0}, "learners": {"alternate_every": 5}}, 1),
    ],
)
def test_who_waits_for_its_version_to_be_served(values: dict[str, object], every: int) -> None:
    assert settle_every(parse_recipe(values)) == every
