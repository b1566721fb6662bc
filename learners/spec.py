"""What a learner group is given: its settings, and where it leaves versions and metrics.

Light and picklable: it travels to every rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from protocol.format_examples import Demonstration
from protocol.interfaces import WeightSink
from protocol.recipe import LearnerConfig, QuirksConfig
from protocol.roles import Player


class LearnerSink(WeightSink, Protocol):
    """Where rank 0 leaves versions and metrics."""

    def report(self, player: Player, step: int, version: int, metrics: dict[str, float]) -> None:
        """Takes the metrics of the step that made `step` steps done, under the version staged after it. Returns at once."""
        ...

    def report_warm(self, player: Player, done: int, wanted: int, metrics: dict[str, float]) -> None:
        """Takes the metrics of the step that made `done` of `wanted` steps of the warm start done."""
        ...

    def flush(self, limit_s: float) -> bool:
        """Waits until all reports were taken. False if they were not after `limit_s` seconds."""
        ...

    def newest(self, player: Player) -> int:
        """The newest version that was ever left here; 0 before the first."""
        ...

    def wait_delivered(self, player: Player, version: int, timeout_s: float) -> bool:
        """True once every generation worker of the player serves `version` or a newer one; False at the deadline."""
        ...


@dataclass(frozen=True, slots=True)
class LearnerResult:
    """How a learner group ended, as one rank tells it.

    Attributes:
        steps: taken, of the whole run.
        version: the last that was staged; `start_step`: where this start began.
        pushes, superseded, delivered: on rank 0: versions handed over, versions that a newer one overtook, whether every generation
            worker serves the last one.
        stopped: it was told to end before its last step, and saved a checkpoint of `steps` steps.
    """

    player: Player
    steps: int
    version: int
    export: Path
    start_step: int
    pushes: int = 0
    superseded: int = 0
    delivered: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class LearnerSpec:
    """One player's learner group.

    `steps` is the whole run's horizon, `push_dtype` ("float32" or "bfloat16") what is pushed and exported, `push_every` in steps.
    `stage_mib` and `stage_s`: how much a gather holds at once, and how long a version's gathers may take.
    `settle_every`: after so many steps, and the last, the group waits until its version is on every generation worker; 0: never.
    `placement_s`: how long the ranks wait for room, at their start and at each restart.
    `template_arguments` are the chat template's. `warm`: what a warm start without a file of demonstrations is made on.
    """

    player: Player
    model_path: str
    config: LearnerConfig
    steps: int
    run_seed: int
    run_dir: str
    push_dtype: str
    push_every: int = 1
    quirks: QuirksConfig = field(default_factory=QuirksConfig)
    settle_every: int = 0
    stage_mib: int = 256
    stage_s: float = 60.0
    placement_s: float = 600.0
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    warm: tuple[Demonstration, ...] = ()

    @property
    def checkpoints(self) -> Path:
        """The folder of this player's `step-N` folders."""
        return Path(self.run_dir) / "checkpoints" / self.player

    @property
    def export(self) -> Path:
        """This player's Hugging Face folder."""
        return Path(self.run_dir) / "export" / self.player

    @property
    def adapter(self) -> Path:
        """Its PEFT folder, where adapters are trained."""
        return self.export.with_name(f"{self.player}-adapter")

    @property
    def section(self) -> str:
        """The recipe key of `config`."""
        return f"learners.{self.player}"
