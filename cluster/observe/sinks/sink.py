"""What a sink is: a place outside of the run that takes its numbers (W&B, MLflow, TensorBoard). Numbers only, never texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from cluster.plan.sinks import Fact
from protocol.files import write_file
from protocol.roles import Player

Axis = Player | Literal["run", "heldout"]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a sink is told before the first number.

    Attributes:
        name: the run's.
        folder: of the run directory, the sink's own; it may not be there yet.
        resumed: an earlier part of the run has written to the sink.
        settings: of the recipe, by their keys.
    """

    name: str
    folder: Path
    resumed: bool
    settings: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class Record:
    """Numbers of one moment that share an x-axis.

    Attributes:
        axis: whose steps `step` counts: the player's; of "run" and "heldout", those of the player furthest behind.
        time_s: Unix seconds.
        values: by names that begin with the axis.
    """

    axis: Axis
    step: int
    time_s: float
    values: Mapping[str, float]


class Sink(Protocol):
    """Called by one thread, in this order: `start`, any number of `write`, `end`. Each may raise, and may take long.

    Only `abandon` is called by another thread.
    """

    def start(self, run: RunFacts) -> None:
        """Opens it."""
        ...

    def write(self, record: Record) -> None:
        """Hands over one record."""
        ...

    def end(self, status: str) -> None:
        """Hands over what is left and closes it. `status`: "finished", "failed" or "interrupted"."""
        ...

    def abandon(self) -> None:
        """The deadline of the run's end has passed during another call: ends whatever would keep the process from ending."""
        ...


def keep_id(folder: Path, id_: str) -> str:
    """Keeps the sink's own id of this run for a part that resumes it, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "id", id_)
    return id_


def find_id(run: RunFacts) -> str | None:
    """The id that an earlier part of the run kept; None: there is none."""
    file = run.folder / "id"
    return file.read_text(encoding="utf-8") if run.resumed and file.is_file() else None
