"""The recipe is strict, and what it refuses it explains; every shipped recipe parses."""

from pathlib import Path

import pytest

from cluster.inputs.recipe_file import dump_recipe, load_recipe
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from tests.paths import RECIPES

FILES = sorted(RECIPES.glob("*.yaml"))

REFUSED = [
    ({"game": {"respones": 2}}, "game.respones: unknown key; did you mean game.responses?"),
    ({"gme": {}}, "gme: unknown key; did you mean game?"),
    ({"game": {"responses": 0}}, "game.responses: 0 is below 1; set it to at least 1"),
    ({"learners": {"attacker": {"lr": 0}}}, "learners.attacker.lr: 0 is not above 0"),
    ({"learners": {"attacker": {"ema_decay": 1.5}}}, "learners.attacker.ema_decay: 1.5 is above 1"),
    (
        {"judge": {"kind": "oracle"}},
        "judge.kind: 'oracle' is none of 'rules', 'match', 'lm', 'api' or 'none'; pick one of them",
    ),
    ({"run": {"name": "a b"}}, "run.name: 'a b'"),
    (
        {"push": {"transport": "nccl"}},
        "push.transport: nccl needs a GPU on both sides, generation.gpus_per_worker is 0",
    ),
    (
        {"replay": {"capacity_rows": 127}},
        "replay.capacity_rows: 127 is below the 128 rows that a batch of 64 games may give the defender; "
        "set replay.capacity_rows to at least 128",
    ),
    (
        {"generation": {"max_model_len": 2100}},
        "generation.max_model_len: 2100 is below the 4352 tokens that an attack of sampling.max_new_tokens 2048, 256 around it and "
        "an answer of 2048 may take; set generation.max_model_len to at least 4352, or sampling.max_new_tokens to at most 922",
    ),
    (
        {"generation": {"max_model_len": 4351}},
        "generation.max_model_len: 4351 is below the 4352 tokens",
    ),
    (
        {"generation": {"max_model_len": 200}},
        "generation.max_model_len: 200 is below the 4352 tokens that an attack of sampling.max_new_tokens 2048, 256 around it and "
        "an answer of 2048 may take; set generation.max_model_len to at least 4352",
    ),
    (
        {"game": {"prompts": "sandbox"}, "sampling": {"max_new_tokens": 49}, "generation": {"max_model_len": 128}},
        "generation.max_model_len: 128 is below the 130 tokens that an attack of sampling.max_new_tokens 49, 32 around",
    ),
    ({"generation": {"vllm": {"dtype": "half"}}}, "generation.vllm.dtype: is set by dtype; remove it"),
    (
        {"judge": {"engine": {"vllm": {"worker_extension_cls": "x"}}}},
        "judge.engine.vllm.worker_extension_cls: is set by us, for weight updates; remove it",
    ),
    (
        {"generation": {"quantization": "fp8"}},
        "generation.quantization: fp8 cannot be held by players, whose weights are pushed unquantized while they serve; "
        "set it to null",
    ),
    (
        {"generation": {"vllm": {"quantization_config": {"linear": "fp8"}}}},
        "generation.vllm.quantization_config: {'linear': 'fp8'} cannot be held by players",
    ),
    ({"generation": {"vllm": {"model_weights": "/other"}}}, "generation.vllm.model_weights: is set by models"),
    (
        {"generation": {"vllm": {"hf_overrides": {}}}},
        "generation.vllm.hf_overrides: would change the engine's model and not",
    ),
    ({"learners": {"attacker": {"train": False}, "defender": {"train": False}}}, "learners: train is false for both"),
    (
        {"learners": {"alternate_every": 5, "attacker": {"train": False}}},
        "learners.alternate_every: 5 needs two players",
    ),
    (
        {"learners": {"alternate_every": 3}, "push": {"every": 2}},
        "learners.alternate_every: 3 is no multiple of push.every 2",
    ),
    ({"learners": {"attacker": {"loss": "grpo", "nll": 0.1}}}, "learners.attacker.nll: 0.1 with loss grpo"),
    (
        {"learners": {"defender": {"loss": "grpo", "reference": "ema"}}},
        "learners.defender.reference: ema with loss grpo",
    ),
    (
        {"learners": {"attacker": {"train": False, "sft": {"path": "a"}}}},
        "learners.attacker.sft.path: set for a player",
    ),
    (
        {"game": {"prompts": "sandbox", "attacker_format": "prompt"}},
        "game.attacker_format: prompt with game.prompts sandbox",
    ),
    (
        {"models": {"attacker": {"template_arguments": {"tools": []}}}},
        "models.attacker.template_arguments.tools: is set for each prompt and no template's; remove it",
    ),
    (
        {"judge": {"template_arguments": {"enable_thinking": False}}},
        "judge.template_arguments: set with judge.kind rules, which has no template here; remove it",
    ),
    (
        {"learners": {"defender": {"sft": {"warm_steps": 4}}}},
        "learners.defender.sft.warm_steps: 4 without learners.defender.sft.path, and no rule can write a Defender's answers; give",
    ),
    (
        {"learners": {"attacker": {"reference": "frozen", "sft": {"warm_steps": 4}}}},
        "learners.attacker.sft.warm_steps: 4 with reference frozen, which is the model from before the warm start",
    ),
    (
        {"learners": {"attacker": {"train": False, "sft": {"warm_steps": 4}}}},
        "learners.attacker.sft.warm_steps: 4 for a player that does not learn; set it to 0, or train to true",
    ),
    (
        {"game": {"prompts": "sandbox"}, "learners": {"attacker": {"sft": {"warm_steps": 4}}}},
        "learners.attacker.sft.warm_steps: 4 with game.prompts sandbox",
    ),
    ({"judge": {"kind": "api"}}, "judge.api.base_url: null with judge.kind api"),
    ({"judge": {"kind": "api", "api": {"base_url": "u", "model": "m"}}}, "judge.workers: 2 with judge.kind api"),
    (
        {"judge": {"kind": "lm", "gpus_per_worker": 1, "engine": {"tensor_parallel": 2}}},
        "judge.gpus_per_worker: 1 is below",
    ),
    (
        {"judge": {"kind": "match", "verdicts": 3}},
        "judge.verdicts: 3 with judge.kind match, whose answer is the same each time; set it to 1",
    ),
    (
        {"judge": {"kind": "match", "structured": True}},
        "judge.structured: true with judge.kind match, which writes nothing; set it to false",
    ),
    (
        {"judge": {"kind": "match", "rubrics": "sandbox"}},
        "judge.rubrics: sandbox with judge.kind match, which reads tables",
    ),
    (
        {"judge": {"kind": "match", "gpus_per_worker": 0.5}},
        "judge.gpus_per_worker: 0.5 with judge.kind match, which has no model to put there; set it to 0",
    ),
    ({"judge": {"alarm": {"pause_s": 400}}}, "judge.alarm.pause_s: 400 is not below run.stall_s 300"),
    ({"heldout": {"every": -1}}, "heldout.every: -1 is below 0; set it to at least 0"),
    ({"heldout": {"share": 0}}, "heldout.share: 0 is not above 0.0; set it above 0.0"),
    ({"heldout": {"share": 1.5}}, "heldout.share: 1.5 is above 1.0; set it to at most 1.0"),
    ({"heldout": {"deadline_s": 0}}, "heldout.deadline_s: 0 is not above 0"),
    ({"heldout": {"evry": 5}}, "heldout.evry: unknown key; did you mean heldout.every?"),
    ({"promotion": {}, "seeds": {"heldout": None}}, "promotion: nothing is measured without seeds.heldout"),
    ({"promotion": {}, "learners": {"defender": {"train": False}}}, "promotion: the Defender is frozen"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[m[:40] for _, m in REFUSED])
def test_refusals_say_key_value_limit_and_remedy(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as e:
        parse_recipe(values)
    assert str(e.value).startswith(message) and "\n" not in str(e.value)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_shipped_recipes_parse_and_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(recipe))
    assert load_recipe(copy) == recipe


def test_there_are_shipped_recipes() -> None:
    assert {"sandbox", "random-16m"} <= {p.stem for p in FILES}


def test_overrides_win_and_read_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("run: {seed: 1}\n")
    recipe = load_recipe(path, ["run.seed=7", "learners.defender.lr=3e-4", "seeds.heldout=null"])
    assert (recipe.run.seed, recipe.learners.defender.lr, recipe.seeds.heldout) == (7, 3e-4, None)
    assert recipe.learners.attacker == Recipe().learners.attacker


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("a: [", [], "is no YAML"),
        ("- 1", [], "holds a list"),
        ("", ["run.seed"], "no key=value"),
        ("run: {seed: 1}", ["run.seed.x=1"], "is a value, not a section"),
        ("", ["run.sed=1"], "did you mean run.seed?"),
        ("", ["run.seed=2024-13-45"], "is no YAML value"),
        ("run: {seed: 2024-13-45}", [], "is no YAML"),
    ],
)
def test_files_and_overrides_that_cannot_be_read(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        load_recipe(path, overrides)


def test_an_override_changes_one_place_even_where_yaml_shares_a_section(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("learners:\n  attacker: &a {lr: 0.1}\n  defender: *a\n")
    recipe = load_recipe(path, ["learners.defender.lr=0.5"])
    assert (recipe.learners.attacker.lr, recipe.learners.defender.lr) == (0.1, 0.5)


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")


def test_an_engine_takes_vllms_own_arguments(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("judge: {engine: {quantization: fp8, kv_cache_dtype: fp8, vllm: {block_size: 32}}}\n")
    engine = load_recipe(path, ["judge.engine.vllm.max_num_batched_tokens=4096"]).judge.engine
    assert (engine.quantization, engine.kv_cache_dtype) == ("fp8", "fp8")
    assert engine.vllm == {"block_size": 32, "max_num_batched_tokens": 4096}


def test_mode_paper_sets_every_quirk_that_the_recipe_does_not() -> None:
    quirks = parse_recipe({"mode": "paper", "quirks": {"judge_orders": "default"}}).quirks.model_dump()
    assert quirks.pop("judge_orders") == "default"
    assert set(quirks.values()) == {"paper"} and len(quirks) == 4
    assert set(parse_recipe({}).quirks.model_dump().values()) == {"default"}


def test_grpo_in_one_line_is_the_papers() -> None:
    learner = parse_recipe({"learners": {"defender": {"loss": "grpo"}}}).learners.defender
    assert (learner.reference, learner.sampler) == ("frozen", "policy")
    kept = parse_recipe({"learners": {"defender": {"loss": "grpo", "sampler": "ema"}}}).learners.defender
    assert (kept.reference, kept.sampler) == ("frozen", "ema")
