"""The held-out measurements of one run: before, and after against the base and the trained attacker.

The base attacker's attacks and the first measurement are kept in the run directory, so that a resumed run compares with the
same start.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.heldout import Attack, measure, wrap
from cluster.rundir import write_json
from protocol.errors import UserError
from protocol.interfaces import Generator, Judge
from protocol.recipe import Recipe
from protocol.types import Seed


class Evaluation:
    """Measures; `results` holds what was measured so far, by occasion."""

    def __init__(
        self,
        recipe: Recipe,
        seeds: Sequence[Seed],
        run_dir: Path,
        attacker: Generator,
        defender: Generator,
        judge: Judge,
    ) -> None:
        self._recipe, self._seeds, self._file = recipe, {s.id: s for s in seeds}, run_dir / "heldout.json"
        self._attacker, self._defender, self._judge = attacker, defender, judge
        self._attacks: list[Attack] = []
        self.results: dict[str, Any] = {}

    @property
    def _wanted(self) -> int:
        return len(self._seeds) * self._recipe.heldout.samples

    async def _measure(self, attacks: Sequence[Attack], label: str) -> dict[str, Any]:
        measured = await measure(attacks, self._wanted, self._recipe, self._defender, self._judge, label)
        return measured.as_dict()

    async def start(self) -> None:
        """Before training, at version 0 of both; read back if an earlier part of this run has done it."""
        if not self._seeds:
            return
        if self._file.is_file():
            kept = json.loads(self._file.read_text())
            if any(a["seed"] not in self._seeds for a in kept["attacks"]):
                raise UserError(
                    f"seeds.heldout: changed since {self._file} was written; put the same file back to resume"
                )
            self._attacks = [Attack(self._seeds[a["seed"]], a["text"]) for a in kept["attacks"]]
            self.results["start"] = kept["start"]
            return
        seeds = list(self._seeds.values())
        self._attacks = await wrap(seeds, self._recipe, self._attacker, self._judge, "base")
        self.results["start"] = await self._measure(self._attacks, "start")
        attacks = [{"seed": a.seed.id, "text": a.text} for a in self._attacks]
        write_json(self._file, {"start": self.results["start"], "attacks": attacks})

    async def end(self) -> None:
        """After training, when the last versions are on the workers."""
        if not self._seeds:
            return
        self.results["end"] = await self._measure(self._attacks, "end")
        trained = await wrap(list(self._seeds.values()), self._recipe, self._attacker, self._judge, "trained")
        self.results["end_trained_attacker"] = await self._measure(trained, "end-trained")
