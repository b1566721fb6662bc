"""What an entry of the catalogue is: a metric with its type, unit, labels, meaning, and the part whose process sets it.

Conventions, Prometheus' own: base units in names (`_seconds`, `_bytes`, `_ratio`), counters end in `_total`, a version is a value
and never a label. Ray puts `ray_` before each name. Every series carries `run` and `role` besides the labels named here.
"""

from dataclasses import dataclass
from typing import Literal

from protocol.roles import CATEGORIES, PLAYERS

Kind = Literal["gauge", "counter", "histogram"]
Part = Literal["driver", "replay", "publisher", "rollout", "generation", "judge", "learner"]

VALUES: dict[str, tuple[str, ...]] = {"player": PLAYERS, "category": CATEGORIES, "pool": (*PLAYERS, "judge")}
COMMON = ("run", "role")  # labels of every series
PREFIX = "ray_"  # Ray's, before the name of an application's metric


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: without Ray's prefix.
        unit: of the value; "1" for a share, a count or a number without unit.
        help: what it is, in one sentence.
        part: whose process sets it.
        labels: besides `COMMON`.
        buckets: upper bounds of a histogram's.
        values: of its labels, all that occur, besides those in `VALUES`; labels in neither are open (worker names, reasons).
        only: when its series appear; empty: in every run.
        sound: of labels, the values that a run without any fault is sure to have; labels without an entry: all that occur.
        gpu: only GPUs have it.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    part: Part
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    only: str = ""
    sound: tuple[tuple[str, tuple[str, ...]], ...] = ()
    gpu: bool = False

    def known(self, label: str) -> tuple[str, ...] | None:
        """All values of one of its labels; None where it is open."""
        return dict(self.values).get(label, VALUES.get(label))

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its series at Ray's endpoint."""
        name = PREFIX + self.name
        return tuple(name + end for end in ("_bucket", "_sum", "_count")) if self.kind == "histogram" else (name,)


def gauge(name: str, unit: str, help: str, part: Part, labels: tuple[str, ...] = (), **more: object) -> Metric:
    """An entry."""
    return Metric(name, "gauge", unit, help, part, labels, **more)  # type: ignore[arg-type]


def counter(name: str, unit: str, help: str, part: Part, labels: tuple[str, ...] = (), **more: object) -> Metric:
    """An entry."""
    return Metric(name, "counter", unit, help, part, labels, **more)  # type: ignore[arg-type]


def histogram(
    name: str,
    unit: str,
    help: str,
    part: Part,
    buckets: tuple[float, ...],
    labels: tuple[str, ...] = (),
    **more: object,
) -> Metric:
    """An entry."""
    return Metric(name, "histogram", unit, help, part, labels, buckets, **more)  # type: ignore[arg-type]
