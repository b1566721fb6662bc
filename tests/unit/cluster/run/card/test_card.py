"""Model cards: the hub reads their front matter, their figures are the summary's, and a run that did not finish claims nothing."""

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from cluster.exits import RunEnd
from cluster.measure.heldout import Measurement
from cluster.measure.promotion import Decision
from cluster.plan.drawing import plan_json
from cluster.plan.seed_set import SeedSet
from cluster.run.card.card import write_card
from cluster.run.card.facts import CardFacts
from cluster.run.card.recipe import portable_recipe
from cluster.run.summary import RunOutcome, summarize
from learners.storage.base import BaseModel
from protocol.recipe import LoraConfig, parse_recipe
from protocol.roles import PLAYERS, Player
from protocol.texts import code
from protocol.types import Seed
from tests.unit.cluster.plan.plans import SEEDS, plan_of

# Newcombe (1998), table II (a): 56 of 70 against 48 of 80 differ by 0.2 [0.0524, 0.3339]; Wilson's intervals by hand.
BEFORE = Measurement(0.6, 0.25, 0.75, 0.1, 160, 80, 80, 1, 2, 1, 0)
AFTER = Measurement(0.8, 0.25, 0.75, None, 150, 70, 80, 0, 0, 0, 0)
ALL = {"start": BEFORE, "end": AFTER, "end_trained_attacker": BEFORE}
BASE = BaseModel("Qwen/Qwen2.5-0.5B", license={"license": "apache-2.0"}, languages=("en",))
PATH = "/home/somebody/secret"
LORA = LoraConfig(rank=24)


def facts(player: Player = "defender", values: dict[str, Any] | None = None, **given: Any) -> CardFacts:
    """Of a run that finished and measured everything, on a real model."""
    models = {p: {"path": f"{PATH}/{p}-base"} for p in PLAYERS}
    seeds = {"train": f"{PATH}/mine.jsonl", "heldout": f"{PATH}/kept | apart.jsonl"}
    judge = {"kind": "lm", "model": f"{PATH}/judge-model"}
    recipe = parse_recipe({"models": models, "seeds": seeds, "judge": judge} | (values or {}))
    plan = plan_of(recipe, heldout=SEEDS)
    outcome = RunOutcome(RunEnd.FINISHED, 60.0, heldout=ALL)
    summary = json.loads(json.dumps(summarize(plan, given.pop("outcome", outcome))))
    sets = {name: SeedSet(**found) for name, found in plan_json(plan)["inputs"]["seed_sets"].items()}
    made = CardFacts(player, None, BASE, recipe, sets["train"], sets["heldout"], plan.judge.judge_id, False, summary)
    return replace(made, **given)


def metadata(card: str) -> dict[str, Any]:
    """As the hub's own package reads it."""
    data: dict[str, Any] = ModelCard(card).data.to_dict()
    return data


def rows(card: str) -> dict[str, list[str]]:
    """The cells of the card's tables, by their first."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in found}


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("player", PLAYERS)
def test_the_hub_reads_the_front_matter(player: Player, lora: LoraConfig | None) -> None:
    card = write_card(facts(player, lora=lora))
    data = metadata(card)
    assert card.startswith("---\n")
    assert (data["license"], data["language"]) == ("apache-2.0", ["en"])
    assert data["base_model"] == "Qwen/Qwen2.5-0.5B"
    assert data["base_model_relation"] == ("adapter" if lora else "finetune")
    assert data["library_name"] == ("peft" if lora else "transformers")
    assert data["pipeline_tag"] == "text-generation"
    assert {"advgame", player, "dpo"} <= set(data["tags"]) and ("lora" in data["tags"]) == bool(lora)
    assert ("extra_gated_prompt" in data) == ("not-for-all-audiences" in data["tags"]) == (player == "attacker")


def test_what_is_not_known_of_the_base_is_not_in_the_front_matter() -> None:
    data = metadata(write_card(facts(base=BaseModel("my-model"))))
    assert data["base_model"] == "my-model" and not {"license", "language"} & data.keys()
    made = write_card(facts(base=BaseModel("my-model", ancestor="acme/seven")))
    assert (
        metadata(made)["base_model"] == "acme/seven"
        and "trained from `my-model`, which was made from `acme/seven`" in made
    )
    sandbox = write_card(facts(values={"models": {}, "seeds": {}, "judge": {}}))
    assert "base_model" not in metadata(sandbox) and "made-up" in sandbox


def test_the_table_is_the_summarys_with_intervals() -> None:
    found = rows(write_card(facts()))
    assert found[""] == ["before", "after", "change", "trained Attacker"]
    assert found["attack success"] == ["60 % [49, 70]", "80 % [69, 88]", "+20 % [+5, +33]", "60 % [49, 70]"]
    assert found["deflection"][1:3] == ["-", "-"]
    assert found["judged, harmful + benign"] == ["80 + 80", "70 + 80", "", "80 + 80"]
    assert [found[lost] for lost in ("unwrapped", "unjudged", "unanswered")] == [
        ["1", "0", "", "1"],
        ["2", "0", "", "2"],
        ["0", "0", "", "0"],
    ]


def test_attacks_on_the_same_seed_count_as_one_trial() -> None:
    twice = replace(BEFORE, n=320, n_harmful=160, n_benign=160)
    outcome = RunOutcome(RunEnd.FINISHED, 1.0, heldout={"start": twice})
    card = write_card(facts(values={"heldout": {"samples": 2}}, outcome=outcome))
    assert rows(card)["attack success"][0] == "60 % [49, 70]" and "2 attacks on each of 1 harmful and 1 benign" in card


def test_a_frozen_attacker_has_no_column_of_a_trained_one() -> None:
    card = write_card(facts(values={"learners": {"attacker": {"train": False}}}))
    found = rows(card)
    assert found[""] == ["before", "after", "change"] and len(found["attack success"]) == 3
    assert "trained Attacker" not in card


@pytest.mark.parametrize("end", [RunEnd.INTERRUPTED, RunEnd.FAILED])
def test_a_run_that_did_not_finish_says_so_and_claims_nothing(end: RunEnd) -> None:
    card = write_card(facts(outcome=RunOutcome(end, 1.0, f"why, in {PATH}", heldout={"start": BEFORE})))
    assert f"**This run did not finish** (status: {end.word})" in card
    assert rows(card)["attack success"] == ["60 % [49, 70]", "-", "-", "-"]
    assert "**After training nothing was measured.**" in card and "promoted" not in card and PATH not in card
    nothing = write_card(facts(outcome=RunOutcome(end, 1.0)))
    assert (
        "Nothing was measured: the run ended before." in nothing
        and "attack success" not in nothing.lower().split("## use")[0]
    )


def test_a_finished_run_says_neither() -> None:
    card = write_card(facts())
    assert "did not finish" not in card and "learned nothing" not in card and "nothing was measured" not in card.lower()


def test_a_player_that_learned_nothing_is_not_called_trained() -> None:
    outcome = RunOutcome(RunEnd.FINISHED, 1.0, barren=("attacker",), heldout=ALL)
    assert "**This player learned nothing**" in write_card(facts("attacker", outcome=outcome))
    assert "**This player learned nothing**" not in write_card(facts("defender", outcome=outcome))


def test_the_gate_is_the_defenders() -> None:
    decision = Decision(False, ["over_refusal: rose"], {})
    outcome = RunOutcome(RunEnd.FINISHED, 1.0, heldout=ALL, promotion=decision)
    assert "The recipe's gate: **not promoted: over_refusal: rose**." in write_card(facts(outcome=outcome))
    assert "gate: **" not in write_card(facts("attacker", outcome=outcome))


def test_the_attacker_has_a_misuse_note() -> None:
    card = write_card(facts("attacker"))
    assert "## Misuse" in card and "Who should have it" in card and "Who should not" in card
    assert "red-teaming agent" in card.split("## Results")[0]
    assert "## Misuse" not in write_card(facts("defender"))


def test_the_recipe_is_whole_and_its_digest_is_that_of_the_lines_shown() -> None:
    values = {"learners": {"defender": {"lr": 3e-5}}, "observe": {"sinks": {"wandb": {"project": "hush"}}}}
    made = facts(values=values)
    card = write_card(made)
    shown = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)
    assert shown is not None
    assert f"SHA-256 `{hashlib.sha256(shown[1].encode()).hexdigest()}`" in card
    again = parse_recipe(yaml.safe_load(shown[1]))
    assert again.learners == made.recipe.learners and again.game == made.recipe.game
    assert (again.models.defender.path, again.seeds.train) == ("defender-base", "mine.jsonl")
    assert PATH not in card and "hush" not in card


def test_addresses_in_the_recipe_lose_what_is_secret() -> None:
    api = {"base_url": "https://me:pass@judge.example:8443/v1?key=abc", "model": "x/y"}
    text = portable_recipe(parse_recipe({"judge": {"kind": "api", "workers": 1, "api": api}}))
    assert "https://judge.example:8443/v1\n" in text and "pass" not in text and "abc" not in text
    engine = {"vllm": {"download_dir": "/home/me/files", "compilation_config": {"cache_dir": "~/cache"}}}
    assert "/home" not in (text := portable_recipe(parse_recipe({"generation": engine}))) and "~" not in text


def test_seeds_are_counted_and_named_and_never_shown() -> None:
    card = write_card(facts())
    digest = hashlib.sha256(b"b0\nh0\n").hexdigest()
    assert rows(card)["trained on"] == ["`mine.jsonl`", "1", "1", f"`{digest}`"]
    assert rows(card)["held out"][0] == "`kept / apart.jsonl`"
    assert not any(seed.text in card for seed in SEEDS)
    assert SeedSet.of(SEEDS) == SeedSet.of(SEEDS[::-1]) != SeedSet.of([*SEEDS, Seed("h1", "x", "harmful")])


def test_it_says_how_to_load_and_serve_it() -> None:
    whole, adapter = write_card(facts()), write_card(facts(lora=LORA))
    assert 'AutoModelForCausalLM.from_pretrained("FOLDER")' in whole and "vllm serve FOLDER" in whole
    assert 'from_pretrained("Qwen/Qwen2.5-0.5B"), "FOLDER")' in adapter
    assert "vllm serve Qwen/Qwen2.5-0.5B --enable-lora --max-lora-rank 32 --lora-modules defender=FOLDER" in adapter
    for card in (whole, adapter):
        python = re.search(r"```python\n(.*?)```", card, re.DOTALL)
        assert python is not None and compile(python[1], "card", "exec")


def test_judge_and_versions_are_named() -> None:
    card = write_card(facts(judge_card=True))
    assert "`lm:judge-model@1a2b3c4d`" in card and "[judge_card.md](judge_card.md)" in card
    assert re.search(r"- versions: ray \S+, torch \S+, deepspeed \S+, transformers \S+, vllm \S+\n", card)
    assert "judge_card.md" not in write_card(facts())


def test_names_stay_in_their_cells() -> None:
    assert code("a`b|c\nd") == "`a'b/c d`"
