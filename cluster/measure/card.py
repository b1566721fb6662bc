"""The Judge Card: what was measured of a judge on a labelled set, on one page for people and as JSON.

Pure; `card_text` writes it. It holds shares with 95 % intervals and names: neither texts nor paths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.measure.agreement import Row, failures
from cluster.measure.intervals import CONFIDENCE
from cluster.measure.outcomes import Outcome
from cluster.measure.rewording import Changes
from judge.stats import ApiUsage, Usage
from protocol.recipe import JudgeConfig

NO_RUBRIC = {  # kinds whose question has no words
    "rules": "The sandbox's rules read no rubric, so there is nothing to reword.",
    "match": "Tables of phrases stand in the place of a rubric, so there is nothing to reword.",
    "none": "There is no judge, so there is nothing to reword.",
}
NOT_ASKED = "Not measured: --no-reword."
NO_REWORDINGS = "No rewordings of these rubrics lie beside them (folders named SET.reworded-1, SET.reworded-2, ...)."


@dataclass(frozen=True, slots=True)
class Tokens:
    """What all passes over the labels took.

    Attributes:
        read, written: prompt and completion tokens.
        cost: in the currency of the recipe's prices; None for a judge that is not paid for.
    """

    read: int
    written: int
    cost: float | None = None

    @classmethod
    def of(cls, usage: Usage | None) -> "Tokens | None":
        """Of a generator's usage; None for a judge that writes nothing."""
        if usage is None:
            return None
        if isinstance(usage, ApiUsage):
            return cls(usage.tokens_in, usage.tokens_out, usage.cost)
        return cls(usage.prompt_tokens, usage.tokens)


@dataclass(frozen=True, slots=True)
class Card:
    """A judge, and what was measured of it.

    Attributes:
        judge: as verdicts name it.
        kind, model: of the recipe; the model is its name, None where there is none.
        asked: settings that change verdicts: form of the verdict, samples, temperature.
        rubrics: the names that verdicts carry, with versions and digests.
        packages: versions of what the judge ran on.
        labels, judged_labels, known_labels: the set's name, how many of it were judged, how many it has.
        made: the day, UTC.
        rows: the report by criterion, the line over all of them last.
        verdicts, failures: of the first pass.
        changes: of the other passes; empty with `unchanged_because`.
        unchanged_because: why the rubrics were not reworded; None if they were.
    """

    judge: str
    kind: str
    model: str | None
    asked: Mapping[str, Any]
    rubrics: tuple[str, ...]
    packages: Mapping[str, str]
    labels: str
    judged_labels: int
    known_labels: int
    made: str
    rows: tuple[Row, ...]
    verdicts: int
    failures: Mapping[str, int]
    changes: tuple[Changes, ...]
    unchanged_because: str | None
    tokens: Tokens | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain = {k: v for k, v in asdict(self).items() if k != "rows"}
        return {"version": 1, "confidence": CONFIDENCE, **plain, "rows": [row.as_dict() for row in self.rows]}


def make_card(
    config: JudgeConfig,
    judge_id: str,
    packages: Mapping[str, str],
    labels: str,
    known_labels: int,
    made: str,
    first: Sequence[Outcome],
    rows: Sequence[Row],
    changes: Sequence[Changes],
    unchanged_because: str | None,
    usage: Usage | None,
) -> Card:
    """The card of a judge.

    Args:
        config: the recipe's `judge` section.
        first: the answers with the recipe's own rubrics; `rows` is their report.
        usage: of all passes together.
    """
    verdicts = [v for o in first for v in o.verdicts]
    asks_model = config.kind in ("lm", "api")
    asked = {
        "verdicts": config.verdicts,
        "structured": config.structured,
        "temperature": config.sampling.temperature,
        "top_p": config.sampling.top_p,
        "max_new_tokens": config.sampling.max_new_tokens,
    }
    return Card(
        judge=judge_id,
        kind=config.kind,
        model={"lm": Path(config.model).name, "api": config.api.model}.get(config.kind),
        asked=asked if asks_model else {},
        rubrics=tuple(sorted({v.rubric for v in verdicts if not v.rubric.startswith("none/")})),
        packages=packages if config.kind == "lm" else {},
        labels=labels,
        judged_labels=len(first),
        known_labels=known_labels,
        made=made,
        rows=tuple(rows),
        verdicts=len(verdicts),
        failures=failures(first),
        changes=tuple(changes),
        unchanged_because=unchanged_because,
        tokens=Tokens.of(usage),
    )
