"""Writes the model cards of a run's exported folders, at its end, from what lies in its directory: once what they say is known.

A folder is there as soon as its learner is through, before the players are measured; a run that ends in between leaves it with a
card that says so. Until then a folder has none.
"""

import json
from pathlib import Path
from typing import Any

from cluster.inputs.recipe_file import load_recipe
from cluster.plan.seed_set import SeedSet
from cluster.run.card.card import write_card
from cluster.run.card.facts import CardFacts
from cluster.rundir import RunDir
from learners.storage.base import read_base
from protocol.files import write_file
from protocol.roles import PLAYERS

CARD = "README.md"


def write_cards(run_dir: RunDir) -> list[Path]:
    """Writes `README.md`, and a copy of the judge's card if there is one, into every exported folder. Gives the folders.

    May be called again when more is known (the judge's card).

    Raises:
        OSError: a file cannot be read or written.
        UserError: the recipe in the run's directory is none.
    """
    folders = [(p, folder) for p in PLAYERS for folder in (run_dir.export(p), run_dir.adapter(p)) if folder.is_dir()]
    if not folders:
        return []
    recipe = load_recipe(run_dir.recipe)
    plan: dict[str, Any] = json.loads(run_dir.plan.read_text(encoding="utf-8"))
    sets = {name: SeedSet(**found) for name, found in plan["inputs"]["seed_sets"].items()}
    judge_card = run_dir.judge_card.read_bytes() if run_dir.judge_card.is_file() else None
    for player, folder in folders:
        facts = CardFacts(
            player=player,
            lora=recipe.learners.of(player).lora if folder == run_dir.adapter(player) else None,
            base=read_base(Path(plan["inputs"]["models"][player])),
            recipe=recipe,
            train=sets["train"],
            heldout=sets["heldout"],
            judge_id=plan["judge"]["id"],
            judge_card=judge_card is not None,
            summary=run_dir.read_summary(),
        )
        if judge_card is not None:
            write_file(folder / run_dir.judge_card.name, judge_card)
        write_file(folder / CARD, write_card(facts))
    return [folder for _, folder in folders]
