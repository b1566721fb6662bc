"""Seeds and models of a recipe, found and checked before anything is started or written.

`sandbox` stands for the embedded sandbox's files. Bad seed lines are kept for `quarantine.jsonl` in the run directory.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.sandbox import SandboxPaths, ensure_sandbox
from learners.models import check_model_folder
from protocol.errors import UserError
from protocol.recipe import SANDBOX, Recipe
from protocol.roles import PLAYERS, Player
from protocol.seeds import BadLine, read_seeds
from protocol.types import Seed


@dataclass(frozen=True)
class Inputs:
    """What a run reads: absolute model folders, seeds, and the seed lines that were left out."""

    models: dict[Player, str]
    train: list[Seed]
    heldout: list[Seed]
    quarantine: dict[str, list[BadLine]]

    def quarantine_jsonl(self) -> str:
        """One JSON object for each bad line: file, line number, reason. Never the text."""
        return "".join(
            json.dumps({"file": file, "line": bad.number, "reason": bad.reason}) + "\n"
            for file, lines in self.quarantine.items()
            for bad in lines
        )


def _check_length(folder: str, recipe: Recipe, where: str) -> None:
    """A model must be able to hold what the engine is told to serve."""
    limit = json.loads((Path(folder) / "config.json").read_text()).get("max_position_embeddings")
    wanted = recipe.generation.max_model_len
    if isinstance(limit, int) and limit < wanted:
        raise UserError(
            f"{where}: {folder} takes {limit} tokens, generation.max_model_len asks for {wanted}; "
            f"set generation.max_model_len to at most {limit}"
        )


def find_inputs(recipe: Recipe, say: Callable[[str], None]) -> Inputs:
    """Checks every path of the recipe; builds the sandbox (about a minute, once) if the recipe names it.

    Args:
        say: told before something takes long.

    Raises:
        UserError: a model folder is incomplete or too short, a seed file is missing or has no good line.
    """
    sandbox: SandboxPaths | None = None
    named = [recipe.models.attacker.path, recipe.models.defender.path, recipe.seeds.train, recipe.seeds.heldout]
    if recipe.seeds.train != SANDBOX:
        read_seeds(Path(recipe.seeds.train), "seeds.train")  # cheap to refuse before the sandbox is built
    if SANDBOX in named:
        say("the sandbox's two models are taken from the cache, or trained now (about a minute, once)")
        sandbox = ensure_sandbox()

    def resolve(value: str, file: str) -> str:
        return str(getattr(sandbox, file) if value == SANDBOX else Path(value).expanduser().resolve())

    models: dict[Player, str] = {}
    for player in PLAYERS:
        folder = resolve(getattr(recipe.models, player).path, player)
        check_model_folder(folder, f"models.{player}.path")
        _check_length(folder, recipe, f"models.{player}.path")
        models[player] = folder
    train_file = resolve(recipe.seeds.train, "train_seeds")
    train, bad = read_seeds(Path(train_file), "seeds.train")
    quarantine = {train_file: bad}
    heldout: list[Seed] = []
    if recipe.seeds.heldout is not None:
        heldout_file = resolve(recipe.seeds.heldout, "heldout_seeds")
        heldout, quarantine[heldout_file] = read_seeds(Path(heldout_file), "seeds.heldout")
    return Inputs(models, train, heldout, quarantine)
