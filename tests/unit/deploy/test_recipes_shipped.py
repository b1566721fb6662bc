"""Every shipped recipe means what it meant: its resolved values are kept in tests/data/recipes.

After a change on purpose: `UPDATE_RECIPES=1 python -m pytest tests/unit/deploy/test_recipes_shipped.py`, and read the diff.
"""

import difflib
import os

import pytest
import yaml

from cluster.inputs.recipe_file import dump_recipe, load_recipe
from cluster.plan.demand import demand_of
from cluster.plan.placement import place
from cluster.plan.replay import plan_replay
from cluster.replay.rules.admission import AdmissionRule, AdmissionState
from judge.rubric import check_context, load_rubrics
from judge.sampling import fill_in
from protocol.recipe import QuirksConfig, Recipe
from protocol.roles import PLAYERS
from tests.paths import DATA, RECIPES

FOLDER = RECIPES
KEPT = DATA / "recipes"
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
UPDATE = os.environ.get("UPDATE_RECIPES") == "1"

MODELS = ("qwen2.5-7b", "llama-3.1-8b")
LOSSES = ("dpo", "ipo", "grpo")
HEADLINE = [f"{model}-{loss}" for model in MODELS for loss in LOSSES]


def load(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_the_resolved_values_are_as_kept(name: str) -> None:
    kept, now = KEPT / f"{name}.yaml", dump_recipe(load(name))
    if UPDATE:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(now)
    then = kept.read_text() if kept.is_file() else ""
    changed = list(difflib.unified_diff(then.splitlines(), now.splitlines(), "kept", "now", lineterm="", n=3))
    assert not changed, "\n".join([f"{name} resolves differently (UPDATE_RECIPES=1 keeps it)", *changed])


def test_nothing_is_kept_of_recipes_that_are_gone() -> None:
    kept = {path.relative_to(KEPT).with_suffix("").as_posix() for path in KEPT.rglob("*.yaml")}
    assert kept == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_recipe_would_deadlock(name: str) -> None:
    numbers = plan_replay(load(name)).admission
    rule, nobody = AdmissionRule(numbers), dict.fromkeys(PLAYERS, 0)
    for player in numbers.trained:
        # A learner that waits is short of one game at most, and that game may start.
        short_of_one = AdmissionState(0, nobody | {player: numbers.batch_games[player] - 1})
        assert rule.bound(player) >= numbers.batch_games[player] and rule.admit(short_of_one).games >= 1


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).judge.rubrics == "standard"])
def test_the_longest_question_fits_into_the_judges_context(name: str) -> None:
    """At three characters a token, which is more tokens than English takes."""
    r = load(name)
    limit, where = r.judge.engine.max_model_len, "judge.engine.max_model_len"
    rubrics = load_rubrics(r.judge.rubrics)
    new, verdict = r.sampling.max_new_tokens, fill_in(r.judge.sampling).max_new_tokens
    check_context(rubrics, lambda t: len(t) // 3, new, new, verdict, limit, where)


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        *((name, 16) for name in HEADLINE),
        ("ablation-pointwise", 16),
        ("ablation-synchronous", 16),
        ("ablation-frozen-attacker", 12),  # its learners' four are free
        ("ablation-frozen-defender", 12),
        ("8-gpu", 8),
        ("1-gpu", 1),
        ("sandbox", 0),
    ],
)
def test_a_recipe_takes_the_gpus_that_it_is_named_for(name: str, gpus: int) -> None:
    assert demand_of(load(name), place(load(name))).gpus == gpus


@pytest.mark.parametrize("name", HEADLINE)
def test_the_headline_recipes_hold_the_papers_values(name: str) -> None:
    """GAME.md 1, 4 and 6, once more by hand."""
    r = load(name)
    assert r.mode == "default" and r.run.steps == 1000 and r.game.optimistic and r.judge.form == "pairwise"
    assert (r.sampling.temperature, r.sampling.top_p, r.sampling.max_new_tokens) == (0.6, 0.9, 2048)
    assert r.judge.kind == "lm" and r.judge.sampling.max_new_tokens == 8192 and r.push.every == 1
    assert (r.game.attacks, r.game.responses) == ((4, 4) if name.endswith("grpo") else (2, 2))
    for learner in (r.learners.attacker, r.learners.defender):
        assert learner.loss == name.rpartition("-")[2] and learner.beta == 0.1 and learner.batch_games == 64
        assert (learner.lr, learner.lr_final_fraction, learner.weight_decay, learner.clip) == (1e-6, 0.2, 0.1, 1.0)
        assert learner.betas == (0.9, 0.95) and learner.checkpoint_every == 50 and learner.dtype == "bfloat16"
        mode = ("frozen", "policy") if learner.loss == "grpo" else ("ema", "ema")
        assert (learner.reference, learner.sampler, learner.ema_decay) == (*mode, 0.95)
    replicas = {"models/Qwen2.5-32B-Instruct": (6, 1, 1), "models/Llama-3.3-70B-Instruct": (3, 2, 2)}
    judge = r.judge
    assert replicas[judge.model] == (judge.workers, judge.gpus_per_worker, judge.engine.tensor_parallel)


def changes(name: str) -> dict[str, object]:
    """The keys in which a recipe differs from the headline run, with its values."""

    def flat(value: object, at: str = "") -> dict[str, object]:
        if not isinstance(value, dict):
            return {at: value}
        return {k: v for key, below in value.items() for k, v in flat(below, f"{at}.{key}".lstrip(".")).items()}

    base, this = (flat(yaml.safe_load(dump_recipe(load(n)))) for n in ("qwen2.5-7b-dpo", name))
    return {key: value for key, value in this.items() if base.get(key) != value or key not in base}


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("pointwise", {"judge.form": "pointwise"}),
        ("non-optimistic", {"game.optimistic": False}),
        ("no-attacker-reasoning", {"game.attacker_format": "prompt"}),
        ("no-attacker-judge", {"game.attacker_judge": False}),
        ("small-judge", {"judge.model": "models/Qwen2.5-7B-Instruct"}),
        ("frozen-attacker", {"learners.attacker.train": False}),
        ("frozen-defender", {"learners.defender.train": False, "promotion": None}),
        ("alternating", {"learners.alternate_every": 50}),
        ("synchronous", {"replay.max_staleness": 0}),
        ("paper-mode", {"mode": "paper", **{f"quirks.{q}": "paper" for q in QuirksConfig.model_fields}}),
        (
            "on-policy-frozen-reference",
            {f"learners.{p}.{k}": v for p in ("attacker", "defender") for k, v in (("reference", "frozen"), ("sampler", "policy"))},
        ),
    ],
)  # fmt: skip
def test_an_ablation_changes_one_thing(name: str, differs: dict[str, object]) -> None:
    assert changes(f"ablation-{name}") == differs


def test_the_ablations_are_all_there() -> None:
    """GAME.md 5; IPO and GRPO have recipes of their own."""
    assert len([name for name in NAMES if name.startswith("ablation-")]) == 11
