"""The figures that the study keeps of each run, and `study.json`, which holds all that the report needs.

Figures are copied from a run's `summary.json`, never computed anew. A run counts if it finished with the updates that were asked
for; any other is kept with the reason and is in no mean.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from cluster.exits import RunEnd
from cluster.study.variants import VARIANTS, Variant
from protocol.errors import UserError

FORMAT = 1  # of study.json
Occasion = Literal["start", "end", "end_trained_attacker"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One column of the report: a held-out fraction on one occasion."""

    key: str
    occasion: Occasion
    title: str


BASE_SUCCESS = Metric("attack_success", "end", "attack success (base attacker)")
TRAINED_SUCCESS = Metric("attack_success", "end_trained_attacker", "attack success (own trained attacker)")
COMPLIANCE = Metric("benign_compliance", "end", "benign compliance")
OVER_REFUSAL = Metric("over_refusal", "end", "over-refusal")
DEFLECTION = Metric("deflection", "end", "deflection")
POOLED_SUCCESS = Metric("attack_success", "end_trained_attacker", "attack success (pooled trained attackers)")
POOLED_COMPLIANCE = Metric("benign_compliance", "end_trained_attacker", "benign compliance (pooled trained attackers)")
BASE = "base"  # in cross-play: the attacker that every variant starts from
METRICS = (BASE_SUCCESS, TRAINED_SUCCESS, COMPLIANCE, OVER_REFUSAL, DEFLECTION)


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One run. `note` is empty where it counts, else why it does not."""

    variant: str
    seed: int
    note: str
    steps: dict[str, int]
    games: int
    wall_s: float
    attempts: int
    commits: tuple[str, ...]
    machine: str
    versions: dict[str, str]
    heldout: dict[str, dict[str, float | None]]

    @property
    def counts(self) -> bool:
        return not self.note

    def value(self, metric: Metric) -> float | None:
        """The fraction; None where nothing was measured."""
        return self.heldout.get(metric.occasion, {}).get(metric.key)


@dataclass(frozen=True, slots=True)
class Faced:
    """The Defender of one run against the attacks of another variant's Attacker of the same seed."""

    seed: int
    attacker: str  # a variant's name, or "base"
    defender: str
    measured: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that the report is made from."""

    updates: int
    settings: dict[str, str]  # of the baseline's recipe, as far as the method section names them: key, value
    changes: dict[str, dict[str, str]]  # by variant: the keys that its recipe gives another value than the baseline's
    runs: tuple[RunFigures, ...]
    faced: tuple[Faced, ...] = field(default=())

    @property
    def variants(self) -> list[Variant]:
        """Those that were to be run, in the report's order."""
        return [variant for variant in VARIANTS if variant.name in self.changes]

    def counted(self, variant: str) -> list[RunFigures]:
        """The variant's runs that count, by seed."""
        return sorted((r for r in self.runs if r.variant == variant and r.counts), key=lambda r: r.seed)


def figures_of(
    variant: str, seed: int, expected_steps: Mapping[str, int], summary: Mapping[str, Any], origin: Mapping[str, Any]
) -> RunFigures:
    """A run's figures from its summary.

    Args:
        expected_steps: updates of each player, 0 for one that does not train.
        summary: `summary.json`; empty if there is none.
        origin: what `runner` noted beside it: attempts, commits, machine.
    """
    status = summary.get("status", "never ended")
    steps = {p: int(summary.get("steps", {}).get(p, 0)) for p in expected_steps}
    heldout = summary.get("heldout", {})
    note = ""
    if status != RunEnd.FINISHED.word:
        note = f"{status}: {summary.get('note') or origin.get('note') or 'no reason given'}"
    elif steps != dict(expected_steps):
        note = f"took {steps} updates, not {dict(expected_steps)}"
    elif "start" not in heldout or "end" not in heldout:
        note = "nothing was measured on the held-out seeds"
    return RunFigures(
        variant=variant,
        seed=seed,
        note=note,
        steps=steps,
        games=int(summary.get("games", {}).get("finished", 0)),
        wall_s=float(summary.get("wall_s_total", 0.0)),
        attempts=int(origin.get("attempts", 0)),
        commits=tuple(origin.get("commits", ())),
        machine=str(origin.get("machine", "unknown")),
        versions=dict(summary.get("versions", {})),
        heldout={occasion: dict(heldout[occasion]) for occasion in get_args(Occasion) if occasion in heldout},
    )


def dump(study: Study) -> str:
    """`study.json`: one line a run, so that a diff shows which one changed."""
    head = {"format": FORMAT, "updates": study.updates, "settings": study.settings, "changes": study.changes}
    lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    for key, entries in (("runs", study.runs), ("faced", study.faced)):
        body = ",\n".join(json.dumps(asdict(entry), allow_nan=False) for entry in entries)
        lines.append(f'"{key}": [\n{body}\n]')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load(path: Path) -> Study:
    """Reads `study.json` back.

    Raises:
        UserError: it cannot be read, or another version of the study wrote it.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise UserError(
            f"{path}: cannot be read as a study ({type(e).__name__}); run the study, or name its file"
        ) from None
    if value.get("format") != FORMAT:
        raise UserError(f"{path}: format {value.get('format')}, this code reads {FORMAT}; run the study again")
    return Study(
        updates=value["updates"],
        settings=value["settings"],
        changes=value["changes"],
        runs=tuple(RunFigures(**{**run, "commits": tuple(run["commits"])}) for run in value["runs"]),
        faced=tuple(Faced(**entry) for entry in value["faced"]),
    )


def values_by_seed(runs: Sequence[RunFigures], metric: Metric) -> dict[int, float]:
    """The metric of each run, by seed; runs without it are missing."""
    found = {run.seed: run.value(metric) for run in runs}
    return {seed: value for seed, value in found.items() if value is not None}
