"""A learner group under Ray Train: leases, pushes, checkpoints, and goes on exactly after one of its ranks is killed."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray

from learners.fit import fit_group
from learners.spec import LearnerSpec
from protocol.recipe import LearnerConfig
from protocol.types import Holding

pytestmark = pytest.mark.timeout(420)

STEPS, EVERY, DIES_AT = 12, 5, 7
CONFIG = LearnerConfig(
    lr=1e-3,
    dtype="float32",
    stage3_param_persistence_threshold=0,
    checkpoint_every=EVERY,
    cpus_per_rank=0.1,
    restarts=1,
)


@ray.remote(num_cpus=0)
class FakeCluster:
    """Stands in for replay buffer and weight delivery; kills one rank, once, when it asks for `dies_at`."""

    def __init__(self, tables: list[Any], dies_at: int | None) -> None:
        self.tables, self.dies_at = tables, dies_at
        self.pids: set[int] = set()
        self.calls: list[tuple[str, Any]] = []
        self.reports: list[tuple[int, int, dict[str, float]]] = []
        self.published: list[Any] = []
        self.version = 0
        self.stops = False

    def lease(self, step: int, version: int, games: int, pid: int) -> Any:
        self.pids.add(pid)
        if step == self.dies_at and pid == max(self.pids):
            self.dies_at = None
            os.kill(pid, signal.SIGKILL)
        self.calls.append(("lease", step))
        return None if self.calls.count(("lease", step)) == 1 else self.tables[step]  # the first to ask has to wait

    def note(self, what: str, step: int) -> int:
        self.calls.append((what, step))
        return self.version

    def publish(self, manifest: Any, packed: Any) -> None:
        assert len(packed) == manifest.nbytes
        self.version = max(self.version, manifest.version)
        self.published.append(manifest)

    def report(self, step: int, version: int, metrics: dict[str, float]) -> None:
        self.reports.append((step, version, metrics))

    def stop(self) -> None:
        self.stops = True

    def stopping(self) -> bool:
        return self.stops

    def seen(self) -> dict[str, Any]:
        return {"calls": self.calls, "reports": self.reports, "published": self.published, "version": self.version}


class FakeLink:
    """Source and sink as the cluster's adapters are: picklable, blocking, an actor behind them."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def lease(self, player: str, step: int, version: int, games: int, timeout_s: float) -> Any:
        return ray.get(self.actor.lease.remote(step, version, games, os.getpid()), timeout=timeout_s)

    def stopping(self) -> bool:
        return bool(ray.get(self.actor.stopping.remote()))

    def acknowledge(self, player: str, step: int) -> None:
        ray.get(self.actor.note.remote("acknowledge", step))

    def rewind(self, player: str, step: int) -> int:
        return ray.get(self.actor.note.remote("rewind", step))

    def finished(self, player: str) -> None:
        ray.get(self.actor.note.remote("finished", -1))

    def publish(self, manifest: Any, packed: Any) -> Holding:
        ray.get(self.actor.publish.remote(manifest, bytes(packed.view)))
        return self.holding(manifest.player)

    def holding(self, player: str) -> Holding:
        version = self.newest(player)
        return Holding("here", frozenset([version] if version else []))

    def flush(self, limit_s: float) -> bool:
        return True

    def report(self, player: str, step: int, version: int, metrics: dict[str, float]) -> None:
        ray.get(self.actor.report.remote(step, version, metrics))

    def newest(self, player: str) -> int:
        return int(ray.get(self.actor.seen.remote())["version"])

    def wait_delivered(self, player: str, version: int, timeout_s: float) -> bool:
        return bool(ray.get(self.actor.seen.remote())["version"] >= version)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> LearnerSpec:
    from tests.integration.tiny_qwen import (
        save_tiny,
    )  # here: Ray's workers import this module, and need no torch for it

    run = tmp_path_factory.mktemp("run")
    save_tiny(run / "model", seed=1)
    return LearnerSpec("defender", str(run / "model"), CONFIG, STEPS, 0, str(run), "float32")


@pytest.fixture(scope="module")
def ran(local_ray: None, spec: LearnerSpec) -> dict[str, Any]:
    from tests.integration.learners.ranks import table

    actor = FakeCluster.remote([table(k) for k in range(STEPS)], DIES_AT)
    link = FakeLink(actor)
    task = ray.remote(num_cpus=0)(fit_group)
    try:
        result = ray.get(task.remote(spec, link, link), timeout=360)
        return {"result": result, **ray.get(actor.seen.remote())}
    finally:
        ray.kill(actor)


def test_a_killed_rank_costs_only_the_steps_since_the_checkpoint(ran: dict[str, Any], spec: LearnerSpec) -> None:
    assert ran["result"].start_step == EVERY
    assert ran["result"].steps == STEPS
    assert ran["result"].delivered is True
    assert [step for what, step in ran["calls"] if what == "rewind"] == [0, EVERY]
    assert [step for step, _, _ in ran["reports"]] == [*range(1, DIES_AT + 1), *range(EVERY + 1, STEPS + 1)]


def test_repeated_steps_have_the_losses_that_they_had(ran: dict[str, Any]) -> None:
    parts = (ran["reports"][:7], ran["reports"][7:])
    first, again = (
        [m.get("loss") for s, _, m in part if s in (6, 7)] for part in parts
    )  # none where nothing is learned
    assert first == again
    assert len(first) == 2 and any(loss is not None for loss in first)


def test_versions_rise_and_the_restart_pushes_what_it_loaded(ran: dict[str, Any]) -> None:
    versions = [m.version for m in ran["published"]]
    assert versions == sorted(set(versions))
    assert versions[-1] == ran["result"].version == STEPS + 1 + (DIES_AT - EVERY)
    loaded = [m for m in ran["published"] if m.step == EVERY]
    assert [m.version for m in loaded] == [EVERY, DIES_AT + 1]
    assert len({m.checksum for m in loaded}) == 1
    assert len({m.checksum for m in ran["published"]}) > STEPS / 2, "the weights change from version to version"


def test_rows_are_acknowledged_behind_checkpoints_only(ran: dict[str, Any], spec: LearnerSpec) -> None:
    ends = [call for call in ran["calls"] if call[0] in ("acknowledge", "finished")]
    assert ends == [("acknowledge", 5), ("acknowledge", 10), ("acknowledge", 12), ("acknowledge", 12), ("finished", -1)]
    assert sorted(path.name for path in spec.checkpoints.iterdir()) == ["step-10", "step-12"]


def test_the_export_has_the_last_pushed_weights(ran: dict[str, Any]) -> None:
    import xxhash
    from safetensors.torch import load_file

    tensors = load_file(Path(ran["result"].export) / "model.safetensors")
    last = ran["published"][-1]
    packed = b"".join(tensors[t.name].numpy().tobytes() for t in last.tensors)
    assert xxhash.xxh3_128_hexdigest(packed) == last.checksum


def test_two_ranks_that_hear_of_the_stop_at_different_times_end_before_the_same_step(
    local_ray: None, spec: LearnerSpec, tmp_path: Path
) -> None:
    from dataclasses import replace

    from tests.integration.learners.ranks import table

    own = replace(spec, run_dir=str(tmp_path))
    actor = FakeCluster.remote([table(k) for k in range(STEPS)], None)
    link = FakeLink(actor)
    try:
        running = ray.remote(num_cpus=0)(fit_group).remote(own, link, link)
        while len(ray.get(actor.seen.remote())["reports"]) < 2:
            assert not ray.wait([running], timeout=0.05)[0]
        ray.get(actor.stop.remote())
        result = ray.get(running, timeout=120)
        seen = ray.get(actor.seen.remote())
    finally:
        ray.kill(actor)
    assert result.stopped and 2 <= result.steps < STEPS
    assert seen["calls"][-1] == ("acknowledge", result.steps) and ("finished", -1) not in seen["calls"]
    assert (own.checkpoints / f"step-{result.steps}" / "rank-1.pt").is_file()
