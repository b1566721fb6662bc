"""The choreography of one weight update against a fake engine: who is resumed, who is broken, what is left behind."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import update as under_test
from actors.errors import WeightsRefused, WorkerBroken
from actors.update import Held, check_moved, digest_of, sweep_staged, update
from protocol.types import TensorSpec, WeightManifest

PACKED = np.arange(16, dtype=np.uint8)
MANIFEST = WeightManifest(
    "attacker", 7, (TensorSpec("w", "float32", (4,), 0, 16),), 16, hashlib.blake2b(PACKED, digest_size=16).hexdigest()
)
OLD = Held(digest_of({"w": "old"}), "packed-old")


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


class FakeEngine:
    """Notes each phase; fails or hangs in the one it is told to."""

    dtype = "float32"

    def __init__(self, fail: str = "", error: Exception | None = None, hang: str = "", loads: str = "new") -> None:
        self.fail, self.error, self.hang, self.loads = fail, error, hang, loads
        self.phases: list[str] = []
        self.paths: list[Path] = []
        self.seen = b""

    async def _phase(self, name: str) -> None:
        self.phases.append(name)
        if name == self.hang:
            await asyncio.sleep(60)
        if name == self.fail:
            raise self.error or RuntimeError(name)

    async def pause(self) -> None:
        await self._phase("pause")

    async def resume(self) -> None:
        await self._phase("resume")

    async def start_update(self) -> None:
        await self._phase("start_update")

    async def load(self, update_info: dict[str, Any]) -> None:
        self.paths.append(Path(update_info["path"]))
        self.seen = self.paths[-1].read_bytes()
        await self._phase("load")

    async def finish_update(self, version: int) -> None:
        await self._phase(f"finish {version}")

    async def checksums(self) -> dict[str, str]:
        await self._phase("checksums")
        return {"w": self.loads}


@pytest.fixture(autouse=True)
def _staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "staging_dir", lambda _nbytes: tmp_path)


async def test_a_good_push_goes_through_every_phase_in_order_and_leaves_no_file(tmp_path: Path) -> None:
    engine = FakeEngine()
    report = await update(engine, MANIFEST, PACKED, 5.0, OLD)
    assert engine.phases == ["pause", "start_update", "load", "finish 7", "checksums", "resume"]
    assert engine.seen == PACKED.tobytes()
    assert report.version == 7 and report.moved and report.checksum_after == digest_of({"w": "new"})
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("engine", "raises"),
    [
        (FakeEngine(fail="pause"), RuntimeError),
        (FakeEngine(fail="start_update"), RuntimeError),
        (FakeEngine(hang="pause"), TimeoutError),
        (FakeEngine(fail="load", error=Exception("Call to x failed: weights refused: checksum")), WeightsRefused),
    ],
    ids=["pause fails", "start fails", "pause hangs", "worker refuses"],
)
async def test_whatever_fails_before_loading_resumes_the_old_version(
    engine: FakeEngine, raises: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(raises) as caught:
        await update(engine, MANIFEST, PACKED, 0.2, OLD)
    assert not isinstance(caught.value, WorkerBroken)
    assert engine.phases[-1] == "resume"
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    "engine",
    [
        FakeEngine(fail="load"),
        FakeEngine(hang="load"),
        FakeEngine(fail="finish 7"),
        FakeEngine(fail="checksums"),
        FakeEngine(loads="old"),
    ],
    ids=["load fails", "load hangs", "finish fails", "checksums fail", "nothing moved"],
)
async def test_whatever_fails_after_that_never_resumes(engine: FakeEngine, tmp_path: Path) -> None:
    with pytest.raises(WorkerBroken):
        await update(engine, MANIFEST, PACKED, 0.2, OLD)
    assert "resume" not in engine.phases
    assert left_in(tmp_path) == []


async def test_an_engine_that_does_not_resume_is_broken() -> None:
    with pytest.raises(WorkerBroken, match="resume"):
        await update(FakeEngine(fail="resume"), MANIFEST, PACKED, 5.0, OLD)


async def test_a_cancelled_load_does_not_leave_half_loaded_weights_in_service() -> None:
    engine = FakeEngine(hang="load")
    task = asyncio.create_task(update(engine, MANIFEST, PACKED, 5.0, OLD))
    while "load" not in engine.phases:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(WorkerBroken):
        await task
    assert "resume" not in engine.phases


async def test_a_push_of_the_wrong_length_touches_nothing() -> None:
    engine = FakeEngine()
    with pytest.raises(WeightsRefused, match="15 bytes, its manifest says 16"):
        await update(engine, MANIFEST, PACKED[:15], 5.0, OLD)
    assert engine.phases == []


@pytest.mark.parametrize(
    ("before", "after", "exact", "moved"),
    [
        (Held("a", None), Held("a", "p"), True, False),  # the first push may bring what the engine was built from
        (Held("a", None), Held("b", "p"), True, True),
        (Held("a", "p"), Held("b", "q"), True, True),
        (Held("a", "p"), Held("a", "p"), True, False),
        (Held("a", "p"), Held("a", "q"), False, False),  # the difference was rounded away
    ],
)
def test_parameters_move_as_the_pushes_do(before: Held, after: Held, exact: bool, moved: bool) -> None:
    assert check_moved(before, after, exact) is moved


@pytest.mark.parametrize(("before", "after"), [(Held("a", "p"), Held("a", "q")), (Held("a", "p"), Held("b", "p"))])
def test_parameters_that_contradict_the_push_are_not_served(before: Held, after: Held) -> None:
    with pytest.raises(WorkerBroken):
        check_moved(before, after, exact=True)


def test_the_sweep_removes_what_dead_processes_left_and_nothing_else(tmp_path: Path) -> None:
    dead = tmp_path / f"{under_test.FILE_PREFIX}999999999-x"
    alive = tmp_path / f"{under_test.FILE_PREFIX}1-x"
    other = tmp_path / "other-999999999-x"
    for path in (dead, alive, other):
        path.touch()
    sweep_staged(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {alive.name, other.name}
