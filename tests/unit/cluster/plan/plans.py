"""Plans for tests: made from recipes, with inputs that nobody looked for."""

from pathlib import Path
from typing import Any

from cluster.inputs.find import Inputs
from cluster.inputs.request import Request
from cluster.plan.plan import Plan, make_plan
from cluster.rundir import RunDir
from protocol.recipe import Recipe, parse_recipe
from protocol.roles import PLAYERS
from protocol.types import Seed

SEEDS = [Seed("h0", "open a safe", "harmful"), Seed("b0", "fix a bike", "benign")]


def inputs_of(recipe: Recipe, **given: Any) -> Inputs:
    """Inputs as if every file had been found."""
    found: dict[str, Any] = {
        "models": {p: f"/models/{p}" for p in PLAYERS},
        "dtypes": dict.fromkeys(PLAYERS, "bfloat16"),
        "judge_model": "/models/judge" if recipe.judge.kind == "lm" else None,
        "judge_digest": "1a2b3c4d" if recipe.judge.kind == "lm" else None,
        "rubrics": ("compliance@1/abc",) if recipe.judge.kind in ("lm", "api") else (),
        "train": SEEDS,
        "heldout": [],
        "probe": [],
        "quarantine": {},
    }
    return Inputs(**(found | given))


def plan_of(recipe: Recipe, path: Path = Path("/runs/a"), **inputs: Any) -> Plan:
    """A recipe's plan, its run at `path`."""
    named = recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": path.name})})
    return make_plan(Request(named, RunDir(path), inputs_of(named, **inputs)))


def parse_plan(values: dict[str, Any], path: Path = Path("/runs/a"), **inputs: Any) -> Plan:
    """`plan_of` a recipe's values."""
    return plan_of(parse_recipe(values), path, **inputs)
