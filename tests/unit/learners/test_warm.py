"""The warm start of a learner: its place before the first lease, its checkpoints, and what a restart makes of them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import learners.loop
from learners.batch.demonstrations import Demonstrations, SftMix
from learners.loop import learn
from learners.spec import LearnerSpec
from learners.storage import checkpoints
from protocol.recipe import LearnerConfig, SftConfig
from tests.unit.learners.test_loop import Cluster, CountingEngine, one_rank

__all__ = ["one_rank"]


class WarmEngine(CountingEngine):
    """Counts the steps of a warm start, too."""

    begun: list[int]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.warm_done, self.begun = 0, []

    def warm_step(self, demonstrations: Any) -> dict[str, float]:
        self.warm_done += 1
        return {"nll": 1.0 / self.warm_done, "grad_norm": 1.0, "seconds": 0.1}

    def begin_game(self) -> None:
        self.begun.append(self.warm_done)

    def save(self, dir: Path) -> None:
        dir.mkdir(parents=True)
        at = {"step": self.steps_done, "version": self.version, "warm": self.warm_done}
        checkpoints.write_meta(dir, **at, ranks=1, config=self.config)

    def load(self, dir: Path) -> None:
        super().load(dir)
        self.warm_done = checkpoints.read_meta(dir, self.config).warm


class Sink(Cluster):
    def __init__(self, dies_at: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.warm: list[int] = []
        self.dies_at = dies_at

    def report_warm(self, player: str, done: int, wanted: int, metrics: dict[str, float]) -> None:
        if done == self.dies_at:
            raise RuntimeError("a rank died")
        assert wanted == 5 and metrics["nll"] == 1.0 / done
        self.warm.append(done)


@pytest.fixture(autouse=True)
def engines(one_rank: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[WarmEngine]]:
    made: list[WarmEngine] = []

    def make(*args: Any) -> WarmEngine:
        made.append(WarmEngine(*args))
        return made[-1]

    config = LearnerConfig(sft=SftConfig(warm_steps=5, batch=1))
    examples = SftMix([(np.array([1]), np.array([2]))], config, 0, "warm")
    monkeypatch.setattr("learners.zero3.engine.ZeroEngine", make)
    monkeypatch.setattr(learners.loop, "load_demonstrations", lambda _: Demonstrations(None, examples))
    yield made


def spec(tmp_path: Path, steps: int = 2) -> LearnerSpec:
    config = LearnerConfig(ranks=1, checkpoint_every=2, batch_games=8, sft=SftConfig(warm_steps=5))
    return LearnerSpec("attacker", "m", config, steps, 0, str(tmp_path / "run"), "float32")


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "attacker").iterdir())


def lead(sink: Sink) -> set[int]:
    """By how much each push's version exceeds its step. Under load a newer version overtakes the first, so any may be told."""
    return {version - step for version, step in sink.pushed}


def test_a_run_begins_with_it_and_plays_with_what_it_ends_at(tmp_path: Path, engines: list[WarmEngine]) -> None:
    sink = Sink()
    result = learn(spec(tmp_path), sink, sink)
    assert sink.warm == [1, 2, 3, 4, 5] and engines[0].begun == [5]
    assert lead(sink) == {1}, "the first version contains no step of the run"
    assert ("lease", 0, 1, 8) in sink.calls, "the first games are asked for under it"
    assert [call for call in sink.calls if call[0] == "report"] == [("report", 1, 2), ("report", 2, 3)]
    assert ("acknowledge", 0) not in sink.calls
    assert (result.steps, result.version, result.start_step) == (2, 3, 0)
    assert folders(tmp_path) == ["step-2", "warm-5"]


def test_one_that_is_cut_off_goes_on_at_its_checkpoint(tmp_path: Path, engines: list[WarmEngine]) -> None:
    broken = Sink(dies_at=4)
    with pytest.raises(RuntimeError, match="a rank died"):
        learn(spec(tmp_path), broken, broken)
    assert folders(tmp_path) == ["warm-2"] and broken.pushed == []
    sink = Sink()
    learn(spec(tmp_path), sink, sink)
    assert sink.warm == [3, 4, 5] and sink.calls[0] == ("rewind", 0) and engines[-1].begun == [5]


def test_a_group_that_dies_before_its_first_step_pushes_what_it_was_warmed_to(
    tmp_path: Path, engines: list[WarmEngine]
) -> None:
    broken = Sink(fails_at=0)
    with pytest.raises(RuntimeError, match="closed"):
        learn(spec(tmp_path), broken, broken)
    assert folders(tmp_path) == ["warm-4", "warm-5"]

    class Patient(Sink):
        def lease(self, *args: Any) -> Any:
            deadline = time.monotonic() + 10.0
            while (
                not self.pushed and time.monotonic() < deadline
            ):  # else a later version may overtake it in the handover
                time.sleep(0.001)
            return super().lease(*args)

    sink = Patient(seen=1)
    learn(spec(tmp_path), sink, sink)
    assert sink.warm == [] and lead(sink) == {2} and ("lease", 0, 2, 8) in sink.calls


def test_a_learner_that_has_taken_a_step_of_the_run_takes_none(tmp_path: Path, engines: list[WarmEngine]) -> None:
    first = Sink()
    learn(spec(tmp_path), first, first)
    again = Sink(seen=3)
    learn(spec(tmp_path, steps=4), again, again)
    assert again.warm == [] and engines[-1].begun == [] and again.calls[0] == ("rewind", 2)
    assert folders(tmp_path) == ["step-2", "step-4"]
