"""The names in a run directory (DESIGN.md, "A run's directory"), and reading what an earlier part of the run left there.

It owns names only. Who writes a file knows its format; `cluster.run.folder` makes the directory.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import UserError
from protocol.roles import Player


@dataclass(frozen=True, slots=True)
class RunDir:
    """One run's directory. `path` is absolute."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def plan(self) -> Path:
        """What was decided before anything started."""
        return self.path / "plan.json"

    @property
    def summary(self) -> Path:
        """What came of the run."""
        return self.path / "summary.json"

    @property
    def judge_card(self) -> Path:
        """What is known of the judge, where somebody looked."""
        return self.path / "judge_card.md"

    @property
    def metrics(self) -> Path:
        """What every learner step reported."""
        return self.path / "metrics.parquet"

    @property
    def moment(self) -> Path:
        """The newest value of every series that the driver knows."""
        return self.path / "moment.json"

    @property
    def sinks(self) -> Path:
        """A folder for each sink that writes files."""
        return self.path / "sinks"

    @property
    def inputs(self) -> Path:
        """Copies of the small files that it reads: seeds, demonstrations, probe."""
        return self.path / "inputs"

    @property
    def quarantine(self) -> Path:
        """Seed lines that were left out."""
        return self.path / "quarantine.jsonl"

    @property
    def heldout(self) -> Path:
        """The base attacker's held-out attacks, and the first measurement."""
        return self.path / "heldout.json"

    @property
    def heldout_points(self) -> Path:
        """The held-out scores of the run so far, and the measurements that were skipped, by reason."""
        return self.path / "heldout_points.json"

    @property
    def probe(self) -> Path:
        """What the judge said to its probe set, each time."""
        return self.path / "probe.jsonl"

    @property
    def games(self) -> Path:
        """Some of its games to read, texts and all; where the recipe asks for it."""
        return self.path / "games.md"

    @property
    def logs(self) -> Path:
        """One file a worker."""
        return self.path / "logs"

    @property
    def processes(self) -> Path:
        """Where each process of the run is: one file a role."""
        return self.path / "processes"

    @property
    def prometheus(self) -> Path:
        """Data, configuration and log of the Prometheus that `watch` runs beside it."""
        return self.path / "prometheus"

    @property
    def replay(self) -> Path:
        """Segments and journal of the replay buffer."""
        return self.path / "replay"

    @property
    def ledger(self) -> Path:
        """An API judge's account of tokens and money."""
        return self.path / "judge" / "ledger.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the driver that runs it."""
        return self.path / ".lock"

    def checkpoints(self, player: Player) -> Path:
        """The folder of a player's `step-N` folders."""
        return self.path / "checkpoints" / player

    def export(self, player: Player) -> Path:
        """A player's trained Hugging Face folder."""
        return self.path / "export" / player

    def adapter(self, player: Player) -> Path:
        """A player's trained PEFT folder, where adapters were trained."""
        return self.path / "export" / f"{player}-adapter"

    def read_summary(self) -> dict[str, Any]:
        """`summary.json`; empty if there is none that can be read."""
        try:
            value: object = json.loads(self.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def resume_from(path: Path, remedy: str) -> Iterator[None]:
    """Around reading a file that an earlier part of the run left: what goes wrong there becomes one line for the user.

    Args:
        remedy: what to do about the file, and what is lost by it.

    Raises:
        UserError: it cannot be read, or is not what is written under that name. What stands in it is not quoted.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, NotImplementedError) as e:  # Arrow's errors are of these types
        why = e.strerror if isinstance(e, OSError) and e.strerror else type(e).__name__
        raise UserError(f"--resume: {path} is damaged or cannot be read ({why}); {remedy}") from None
