"""The order of things in a learner's loop, with an engine that only counts (the real one: integration/learners/test_zero3.py)."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

import learners.zero3.engine
from learners.loop import learn
from learners.spec import LearnerSpec
from learners.step_metrics import count_step
from learners.storage import checkpoints, inventory
from learners.weights.buffers import StagingPool
from learners.zero3.staging import Destination
from protocol.errors import UserError
from protocol.recipe import LearnerConfig, LoraConfig, QuirksConfig
from protocol.rows import SCHEMA
from protocol.shared import SharedBuffer
from protocol.types import Holding, WeightManifest
from tests.unit.meters import RecordingMeter


class CountingEngine:
    """One rank whose weights are a number."""

    def __init__(self, model_path: str, config: LearnerConfig, steps: int, seed: int, quirks: QuirksConfig) -> None:
        self.config = config
        self.rank, self.world, self.steps_done, self.version = 0, 1, 0, 0

    def step(self, batches: Any, step_index: int, demonstrations: Any) -> dict[str, float]:
        self.steps_done = step_index + 1
        return {"loss": 0.5, "items": 2.0, "skipped": 0.0, "tokens": 8.0, "seconds": 0.1}

    def stage(self, dtype: str, player: Any, version: int, step: int, destination: Destination) -> Any:
        self.version = version
        packed = destination.allocate(8)
        packed[:] = version
        return WeightManifest(player, version, (), 8, "", step=step), packed

    def packed_bytes(self, dtype: str) -> int:
        return 8

    def save(self, dir: Path) -> None:
        dir.mkdir(parents=True)
        (dir / "weights.pt").write_bytes(f"weights of step {self.steps_done}".encode())
        files = inventory.sync_and_describe(dir, inventory.files_of(dir, 0))
        at = {"step": self.steps_done, "version": self.version}
        checkpoints.write_meta(dir, **at, ranks=1, config=self.config, files=files)

    def load(self, dir: Path) -> None:
        saved = checkpoints.read_meta(dir, self.config)
        self.steps_done, self.version = saved.step, saved.version

    def export(self, dir: Path, dtype: str) -> None:
        dir.mkdir(parents=True, exist_ok=True)

    def export_adapter(self, dir: Path) -> None:
        dir.mkdir(parents=True, exist_ok=True)


class Cluster:
    """Source and sink; writes down what it is asked."""

    def __init__(
        self, seen: int = 0, fails_at: int | None = None, delivers: bool = True, stops_at: int | None = None
    ) -> None:
        self.seen, self.fails_at, self.delivers = seen, fails_at, delivers
        self.stops_at = stops_at  # the run is to end when this step is asked for
        self.calls: list[tuple[Any, ...]] = []
        self.pushed: list[tuple[int, int]] = []
        self.last: list[bool] = []

    def lease(self, player: str, step: int, version: int, games: int, timeout_s: float) -> Any:
        if step == self.fails_at:
            raise RuntimeError("the replay buffer is closed")
        self.calls.append(("lease", step, version, games))
        return SCHEMA.empty_table() if self.calls.count(("lease", step, version, games)) > 1 else None

    def acknowledge(self, player: str, step: int) -> None:
        self.calls.append(("acknowledge", step))

    def rewind(self, player: str, step: int) -> int:
        self.calls.append(("rewind", step))
        return self.seen

    def stopping(self) -> bool:
        return ("lease", self.stops_at) in [call[:2] for call in self.calls]

    def finished(self, player: str) -> None:
        self.calls.append(("finished",))

    def publish(self, manifest: WeightManifest, packed: Any) -> Holding:
        assert packed.view[0] == manifest.version
        self.pushed.append((manifest.version, manifest.step))
        self.last.append(manifest.last)
        return self.holding(manifest.player)

    def holding(self, player: str) -> Holding:
        return Holding("here", frozenset(version for version, _ in self.pushed))

    def flush(self, limit_s: float) -> bool:
        return True

    def report(self, player: str, step: int, version: int, metrics: dict[str, float]) -> None:
        self.calls.append(("report", step, version))

    def newest(self, player: str) -> int:
        return max((version for version, _ in self.pushed), default=0)

    def wait_delivered(self, player: str, version: int, timeout_s: float) -> bool:
        self.calls.append(("wait", version, timeout_s))
        deadline = time.monotonic() + min(timeout_s, 5.0)  # the push is handed over in the background
        while self.delivers and time.monotonic() < deadline:
            if self.pushed and self.pushed[-1][0] >= version:
                return True
            time.sleep(0.001)
        return False


@pytest.fixture(autouse=True)
def one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(learners.zero3.engine, "ZeroEngine", CountingEngine)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
    torch.set_num_threads(threads)


def spec(tmp_path: Path, steps: int, push_every: int = 1, settle_every: int = 0) -> LearnerSpec:
    config = LearnerConfig(ranks=1, checkpoint_every=2, batch_games=8)
    return LearnerSpec(
        "attacker", "m", config, steps, 0, str(tmp_path / "run"), "float32", push_every, settle_every=settle_every
    )


def test_a_fresh_run_leases_pushes_checkpoints_and_says_that_it_is_done(tmp_path: Path) -> None:
    cluster = Cluster()
    result = learn(spec(tmp_path, 3), cluster, cluster)
    assert list(dict.fromkeys(cluster.calls)) == [
        ("rewind", 0),
        ("lease", 0, 0, 8),
        ("report", 1, 1),
        ("lease", 1, 1, 8),
        ("report", 2, 2),
        ("acknowledge", 2),
        ("lease", 2, 2, 8),
        ("report", 3, 3),
        ("acknowledge", 3),
        ("finished",),
        ("wait", 3, 600.0),
    ]
    assert (result.start_step, result.version, result.delivered) == (0, 3, True)
    assert cluster.pushed[-1] == (3, 3)


def test_the_last_step_is_pushed_whatever_the_interval(tmp_path: Path) -> None:
    cluster = Cluster()
    learn(spec(tmp_path, 5, push_every=3), cluster, cluster)
    assert cluster.pushed == [(1, 3), (2, 5)]
    assert cluster.last == [False, True]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_adapters_are_exported_beside_the_merged_model(lora: LoraConfig | None, tmp_path: Path) -> None:
    cluster, alone = Cluster(), spec(tmp_path, 1)
    learn(replace(alone, config=alone.config.model_copy(update={"lora": lora})), cluster, cluster)
    names = sorted(folder.name for folder in (tmp_path / "run" / "export").iterdir())
    assert names == ["attacker", "attacker-adapter"][: 2 if lora else 1]


def test_resume_loads_the_newest_checkpoint_and_pushes_it_as_a_new_version(tmp_path: Path) -> None:
    broken = Cluster(fails_at=3)
    with pytest.raises(RuntimeError, match="closed"):
        learn(spec(tmp_path, 4), broken, broken)
    cluster = Cluster(seen=3)  # the third version was pushed, its step was not saved
    result = learn(spec(tmp_path, 4), cluster, cluster)
    assert cluster.calls[0] == ("rewind", 2)
    assert result.start_step == 2
    assert ("lease", 2, 4, 8) in cluster.calls
    assert [version for version, _ in cluster.pushed] == sorted({version for version, _ in cluster.pushed})
    assert cluster.pushed[-1] == (6, 4) and result.version == 6


def test_a_group_that_starts_over_takes_back_what_it_had_pushed(tmp_path: Path) -> None:
    cluster = Cluster(seen=5)  # died before its first checkpoint; workers hold version 5, the model folder is version 0
    result = learn(spec(tmp_path, 1), cluster, cluster)
    assert ("lease", 0, 6, 8) in cluster.calls
    assert result.version == 7


def test_a_version_that_was_left_before_the_group_died_is_not_used_again(tmp_path: Path) -> None:
    cluster = Cluster(seen=2)
    cluster.pushed.append((3, 3))  # nobody asked for rows under it any more
    result = learn(spec(tmp_path, 1), cluster, cluster)
    assert ("lease", 0, 4, 8) in cluster.calls
    assert min(version for version, _ in cluster.pushed[1:]) > 3 and result.version == 5


def test_a_finished_run_resumes_to_its_end(tmp_path: Path) -> None:
    first = Cluster()
    learn(spec(tmp_path, 2), first, first)
    again = Cluster(seen=2)
    result = learn(spec(tmp_path, 2), again, again)
    assert again.calls == [("rewind", 2), ("acknowledge", 2), ("finished",), ("wait", 3, 600.0)]
    assert again.pushed == [(3, 2)] and again.last == [True]
    assert result.version == 3


def said(cluster: Cluster) -> list[tuple[Any, ...]]:
    """What tells that a step is done, and the waits for its version."""
    kept = [call for call in cluster.calls if call[0] in ("lease", "wait", "acknowledge")]
    return [call[:2] for call in dict.fromkeys(kept)]


def test_where_versions_settle_nobody_hears_of_a_step_before_its_version_is_served(tmp_path: Path) -> None:
    cluster = Cluster()
    learn(spec(tmp_path, 5, settle_every=2), cluster, cluster)
    assert said(cluster)[:-1] == [
        ("lease", 0),
        ("lease", 1),
        ("wait", 2),
        ("acknowledge", 2),
        ("lease", 2),
        ("lease", 3),
        ("wait", 4),
        ("acknowledge", 4),
        ("lease", 4),
        ("wait", 5),
    ]


def test_a_resumed_group_settles_before_its_first_step_and_a_step_without_a_push_has_nothing_to_wait_for(
    tmp_path: Path,
) -> None:
    cluster = Cluster(seen=5)
    learn(spec(tmp_path, 2, push_every=2, settle_every=1), cluster, cluster)
    assert said(cluster)[:4] == [("wait", 6), ("lease", 0), ("lease", 1), ("wait", 7)]
    fresh = Cluster()
    learn(spec(tmp_path / "fresh", 2, push_every=2, settle_every=1), fresh, fresh)
    assert said(fresh)[:3] == [("lease", 0), ("lease", 1), ("wait", 1)]


def test_a_version_that_does_not_arrive_ends_the_group_in_words(tmp_path: Path) -> None:
    cluster = Cluster(delivers=False)
    says = r"attacker: version 1 .* within 600 s \(learners.attacker.collective_deadline_s\)"
    with pytest.raises(TimeoutError, match=says):
        learn(spec(tmp_path, 2, settle_every=1), cluster, cluster)
    assert ("lease", 1, 1, 8) not in cluster.calls


def test_each_step_sets_its_metrics_and_the_phases_follow_each_other(tmp_path: Path, metered: RecordingMeter) -> None:
    cluster = Cluster()
    learn(spec(tmp_path, 4), cluster, cluster)
    steps = metered.counters[("learner_steps_total", "attacker", "taken")]
    assert steps == metered.gauges[("step", "attacker")] == len(metered.histograms[("step_seconds", "attacker")]) == 4
    assert metered.gauges[("loss", "attacker")] == 0.5 and ("accuracy_ratio", "attacker") not in metered.gauges
    assert metered.gauges[("checkpoint_step", "attacker")] == steps
    assert [key[1] for key, value in metered.gauges.items() if key[0] == "phase" and value] == ["ended"]


def test_a_step_without_games_and_one_that_was_skipped_are_told_apart(metered: RecordingMeter) -> None:
    step = {"items": 2.0, "skipped": 0.0, "tokens": 8.0, "seconds": 0.1, "lease_s": 0.5, "stage_s": 0.0}
    for outcome in ({}, {"items": 0.0}, {"skipped": 1.0}):
        count_step("defender", 1, step | outcome, staged=False)
    ended = {key[2]: n for key, n in metered.counters.items() if key[0] == "learner_steps_total"}
    assert ended == {"taken": 1, "empty": 1, "skipped": 1}
    assert not metered.histograms[("stage_seconds", "defender")], "nothing was staged"


def test_the_buffers_are_made_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making and locking gigabytes takes seconds; in a push they would count against `push.deadlines.stage_s`."""
    cluster = Cluster()
    steps_then: list[int] = []

    def make(self: StagingPool, nbytes: int) -> SharedBuffer:
        steps_then.append(len(cluster.calls))
        return SharedBuffer.create(nbytes)

    monkeypatch.setattr(StagingPool, "make", make)
    learn(spec(tmp_path, steps=2), cluster, cluster)  # type: ignore[arg-type]
    assert steps_then == [1, 1], "after the look at what is returned, before the first lease"


@pytest.mark.parametrize(
    ("stops_at", "saved"), [(3, [("acknowledge", 2), ("acknowledge", 3)]), (2, [("acknowledge", 2)]), (0, [])]
)
def test_told_to_stop_it_saves_the_steps_since_the_last_checkpoint_and_a_resumed_run_loses_none(
    stops_at: int, saved: list[tuple[str, int]], tmp_path: Path
) -> None:
    cluster = Cluster(stops_at=stops_at)
    result = learn(spec(tmp_path, 6), cluster, cluster)
    assert (result.stopped, result.steps, result.start_step) == (True, stops_at, 0)
    assert [call for call in cluster.calls if call[0] == "acknowledge"] == saved
    assert ("finished",) not in cluster.calls and not (tmp_path / "run" / "export").exists()
    assert ("report", stops_at + 1, stops_at + 1) not in cluster.calls, "the step that it was to take next is not taken"
    again = Cluster(seen=stops_at)
    assert learn(spec(tmp_path, 6), again, again).start_step == stops_at
    assert again.calls[0] == ("rewind", stops_at)


def saved_twice(tmp_path: Path) -> Path:
    """A group's checkpoints of step 2 and 4."""
    broken = Cluster(fails_at=5)
    with pytest.raises(RuntimeError, match="closed"):
        learn(spec(tmp_path, 8), broken, broken)
    root = tmp_path / "run" / "checkpoints" / "attacker"
    assert sorted(path.name for path in root.iterdir()) == ["step-2", "step-4"]
    return root


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda file: file.write_bytes(b"weights of s"), "weights.pt has 12 bytes and should have 17"),
        (lambda file: file.write_bytes(b"weights of step 5"), "weights.pt is not what was written"),
        (lambda file: file.unlink(), "weights.pt is not there"),
        (lambda file: (file.parent / "checkpoint.json").write_text('{"step": 4,'), "checkpoint.json cannot be read"),
    ],
)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_and_is_said(
    change: Any, why: str, tmp_path: Path
) -> None:
    root = saved_twice(tmp_path)
    change(root / "step-4" / "weights.pt")
    cluster = Cluster(seen=5)
    with structlog.testing.capture_logs() as logs:
        result = learn(spec(tmp_path, 4), cluster, cluster)
    assert cluster.calls[0] == ("rewind", 2) and result.start_step == 2
    (told,) = [entry for entry in logs if entry["event"] == "checkpoint damaged"]
    assert told["checkpoint"] == "step-4" and why in told["why"] and told["aside"] == "step-4.damaged"
    assert sorted(path.name for path in root.iterdir()) == ["step-2", "step-4"], "and step 4 could be saved again"


def test_where_every_checkpoint_is_damaged_nothing_is_learned_anew_in_silence(tmp_path: Path) -> None:
    root = saved_twice(tmp_path)
    for folder in list(root.iterdir()):
        (folder / "weights.pt").write_bytes(b"")
    cluster = Cluster(seen=5)
    with pytest.raises(UserError, match=r"attacker: every checkpoint is damaged.*\.damaged, or remove the folder"):
        learn(spec(tmp_path, 8), cluster, cluster)
    assert cluster.calls == [], "no lease was returned, no step was taken"


def test_checkpoints_that_were_set_aside_are_not_begun_anew_in_silence_by_the_next_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from learners import fit

    monkeypatch.setattr(fit, "check_model_folder", lambda *_: None)
    (tmp_path / "run" / "checkpoints" / "attacker" / "step-4.damaged").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"damaged and set aside .*, and none is left; put its files back, or remove the folder"
    ):
        fit.fit_group(spec(tmp_path, 8), Cluster(), Cluster())
