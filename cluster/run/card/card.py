"""The model card of an exported player: front matter that the Hugging Face hub reads, then what a person must know. Pure.

Every figure comes from the run's `summary.json`; what was not measured is said to be so. A run that did not finish, and a player
that learned nothing, say that first. No seed, no attack and no path of this machine is in a card.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from cluster.exits import RunEnd
from cluster.run.card import words
from cluster.run.card.facts import CardFacts
from cluster.run.card.recipe import digest_recipe, file_name, portable_recipe
from cluster.run.card.results import tell_results
from learners.storage.base import BaseModel
from protocol.texts import code

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as --max-lora-rank


def write_card(facts: CardFacts) -> str:
    """The card's text: Markdown with front matter."""
    parts = [
        ("", _opening(facts)),
        ("Results on held-out seeds", tell_results(facts)),
        ("Use", _use(facts)),
        ("Intended use", [words.INTENDED[facts.player]]),
        ("Misuse", [words.MISUSE] if facts.player == "attacker" else []),
        ("Limits", [words.LIMITS[facts.player] + "\n" + words.COMMON_LIMITS]),
        ("Seeds", _seeds(facts)),
        ("Training", _training(facts)),
        ("Judge", _judge(facts)),
        ("License", [_license(facts.base)]),
    ]
    body = [
        paragraph for title, found in parts if (text := list(found)) for paragraph in (title and f"## {title}", *text)
    ]
    return "\n\n".join([front_matter(facts), *filter(None, body)]) + "\n"


def front_matter(facts: CardFacts) -> str:
    """The metadata between its two lines."""
    base, player = facts.base, facts.player
    loss = facts.recipe.learners.of(player).loss
    values: dict[str, Any] = {**base.license}
    if base.languages:
        values["language"] = list(base.languages)
    if not facts.sandbox:
        values["base_model"] = base.published or base.name
        values["base_model_relation"] = "adapter" if facts.lora else "finetune"
    values |= {"library_name": "peft" if facts.lora else "transformers", "pipeline_tag": "text-generation"}
    values["tags"] = ["advgame", player, "adversarial-training", "red-teaming", loss]
    if facts.lora:
        values["tags"].append("lora")
    if player == "attacker":
        values["tags"].append("not-for-all-audiences")
        values["extra_gated_prompt"] = words.GATE
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _opening(facts: CardFacts) -> Iterator[str]:
    summary, player, base = facts.summary, facts.player, facts.base
    yield f"# {words.TITLES[player]} of the run {summary['run']}"
    if summary["status"] != RunEnd.FINISHED.word:
        yield (
            f"> **This run did not finish** (status: {summary['status']}). These are the player's weights after its last step. "
            "What is missing below was not measured, and nothing is claimed about it."
        )
    if player in summary["barren"]:
        yield "> **This player learned nothing**: its learner got no game to learn from. These are the weights that it began with."
    yield words.WHAT[player]
    if facts.sandbox:
        yield words.SANDBOX
        return
    made_from = f", which was made from {code(base.ancestor)}" if base.ancestor and "/" not in base.name else ""
    what = "The adapter belongs to" if facts.lora else "It was trained from"
    yield f"{what} {code(base.name)}{made_from}."


def _use(facts: CardFacts) -> Iterator[str]:
    game = facts.recipe.game
    load = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
    )
    if facts.lora is None:
        load += 'model = AutoModelForCausalLM.from_pretrained("FOLDER")'
        serve = "vllm serve FOLDER"
    else:
        name = facts.base.name
        load = f"from peft import PeftModel\n{load}"
        load += f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{name}"), "FOLDER")'
        rank = next((rank for rank in LORA_RANKS if rank >= facts.lora.rank), facts.lora.rank)
        serve = f"vllm serve {name} --enable-lora --max-lora-rank {rank} --lora-modules {facts.player}=FOLDER"
    yield f"```python\n{load}\n```"
    yield f"```sh\n{serve}\n```"
    if facts.player == "attacker":
        yield (
            f"It was trained on AdvGame's {game.prompts} prompts (`protocol/prompts.py`, `attacker_messages`) and writes the "
            f"format {code(game.attacker_format)} (`protocol/formats.py`); other prompts are untried."
        )
    elif game.defender_format == "plain" or game.prompts == "sandbox":
        yield "It takes a request as an ordinary user turn, with no system turn."
    else:
        yield (
            f"It was trained with a system turn that asks for the format {code(game.defender_format)} (`protocol/prompts.py`, "
            "`defender_messages`): its reasoning is not meant for the user."
        )


def _seeds(facts: CardFacts) -> Iterator[str]:
    names = {"train": facts.recipe.seeds.train, "heldout": facts.recipe.seeds.heldout}
    rows = ["| seeds | file | harmful | benign | digest |", "|---|---|---:|---:|---|"]
    for label, name, seeds in (
        ("trained on", names["train"], facts.train),
        ("held out", names["heldout"], facts.heldout),
    ):
        if name is not None:
            rows.append(
                f"| {label} | {code(file_name(name))} | {seeds.harmful} | {seeds.benign} | {code(seeds.digest)} |"
            )
    yield "\n".join(rows)
    yield (
        "The digest is SHA-256 over the sorted ids of the seeds, which are digests of their category and text. "
        "No seed is shown here."
    )


def _training(facts: CardFacts) -> Iterator[str]:
    summary, player = facts.summary, facts.player
    config = facts.recipe.learners.of(player)
    rows, staleness = summary["rows"].get(player, {}), summary["staleness"].get("mean_learned")
    lines = [
        f"- {summary['steps'][player]} optimizer steps of {config.loss.upper()}, {config.batch_games} games each; "
        f"{rows.get('learned', 0)} judged groups learned from, of {summary['games']['finished']} games",
        f"- reference: {config.reference}; what was played with, and is here: "
        + ("the moving average of the weights" if config.sampler == "ema" else "the trained weights themselves"),
    ]
    if config.lora is not None:
        lines.append(
            f"- adapters of rank {config.lora.rank}, alpha {config.lora.alpha:g}, on {', '.join(config.lora.targets)}"
        )
    if staleness is not None:
        lines.append(f"- staleness: {staleness:.1f} versions in the mean, at most {summary['staleness']['bound']}")
    lines.append(f"- random seed {summary['seed']}; {summary['wall_s_total']:.0f} s in all")
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in summary["versions"].items()))
    yield "\n".join(lines)
    text = portable_recipe(facts.recipe)
    yield (
        f"The recipe (file names for paths, without `observe`), SHA-256 {code(digest_recipe(text))}:\n\n"
        f"<details><summary>recipe.yaml</summary>\n\n```yaml\n{text}```\n\n</details>"
    )


def _judge(facts: CardFacts) -> Iterator[str]:
    judge, kind = facts.summary["judge"], facts.recipe.judge.kind
    said = words.JUDGES.get(kind)
    yield (
        f"{code(facts.judge_id)} (`judge.kind: {kind}`).{f' {said}' if said else ''} In the games it gave "
        f"{judge['verdicts']} verdicts, of which {judge['failed']} failed: those were left out, and count as "
        "neither safe nor harmful."
    )
    if facts.recipe.heldout.judge == "rules" and kind != "rules":
        yield "The held-out seeds were judged by the sandbox's exact rules instead."
    yield (
        "How well it judges: [judge_card.md](judge_card.md)."
        if facts.judge_card
        else "How well it judges was not measured for this run."
    )


def _license(base: BaseModel) -> str:
    if not base.license:
        return (
            "The folder that training started from names no license. Add the base model's to the front matter before you "
            "pass this on."
        )
    return (
        "The base model's, as its own card or license file says. See that it allows what you want to do, and what it "
        "asks of models made from it."
    )
