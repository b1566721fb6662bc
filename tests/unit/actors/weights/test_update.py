"""The choreography of one weight update against a fake engine: who is resumed, who is broken, what is left behind."""

import asyncio
import pickle
from typing import Any

import numpy as np
import pytest

from actors.errors import PushLate, WeightsRefused, WorkerBroken
from actors.weights.receive import Mappings, copy_to_shared
from actors.weights.update import LoadedWeights, LoadReport, Phases, check_moved, digest_of, update
from protocol.errors import DIGEST_MISMATCH
from protocol.packed import checksum
from protocol.recipe import DeadlinesConfig
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import TensorSpec, WeightManifest

PACKED = np.arange(16, dtype=np.uint8)
MANIFEST = WeightManifest("attacker", 7, (TensorSpec("w", "float32", (4,), 0, 16),), 16, checksum(PACKED))
OLD = LoadedWeights(digest_of({"w": "old"}), "packed-old")


async def run(engine: "FakeEngine", source: Any = PACKED, deadline_s: float = 5.0, **limits: float) -> LoadReport:
    phases = Phases(DeadlinesConfig(**limits), deadline_s)
    return await update(engine, MANIFEST, source, OLD, phases, Mappings(), engine.confirm)


class FakeEngine:
    """Notes each phase; fails or hangs in the one it is told to."""

    dtype = "float32"

    def __init__(
        self,
        fail: str = "",
        error: Exception | None = None,
        hang: str = "",
        loads: str = "new",
        slow: dict[str, float] | None = None,
    ) -> None:
        self.fail, self.error, self.hang, self.loads, self.slow = fail, error, hang, loads, slow or {}
        self.phases: list[str] = []
        self.seen = b""
        self.agrees = True

    async def _phase(self, name: str) -> None:
        self.phases.append(name)
        await asyncio.sleep(self.slow.get(name, 0.0))
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
        self.seen = bytes(SharedBuffer.open(SharedFile(**update_info["file"])).view)
        await self._phase("load")

    async def finish_update(self, version: int) -> None:
        await self._phase(f"finish {version}")

    async def checksums(self) -> dict[str, str]:
        await self._phase("checksums")
        return {"w": self.loads}

    async def confirm(self, digest: str) -> bool:
        await self._phase("confirm")
        return self.agrees


@pytest.mark.parametrize("source", [PACKED, copy_to_shared(PACKED, 16)], ids=["bytes", "file"])
async def test_a_good_push_goes_through_every_phase_in_order(source: Any) -> None:
    engine = FakeEngine()
    report = await run(engine, source.file() if isinstance(source, SharedBuffer) else source)
    assert engine.phases == ["pause", "start_update", "load", "finish 7", "checksums", "confirm", "resume"]
    assert engine.seen == PACKED.tobytes()
    assert report.version == 7 and report.moved and report.checksum_after == digest_of({"w": "new"})
    assert list(report.phases) == ["send", "pause", "load", "verify", "resume"]


async def test_generation_stands_still_from_the_end_of_pause_to_the_end_of_resume() -> None:
    engine = FakeEngine(slow={"pause": 1.0, "load": 0.2, "resume": 0.1, "checksums": 0.2})
    report = await run(engine, deadline_s=60.0)
    phases = report.phases
    assert report.pause_s >= 0.5, "verifying counts"
    assert report.pause_s < sum(phases.values()) - 0.9, "pausing does not"
    assert phases["pause"] >= 1.0 and phases["load"] >= 0.2 and phases["verify"] >= 0.2


async def test_damaged_bytes_are_refused_before_anything_stands_still() -> None:
    engine, damaged = FakeEngine(), PACKED.copy()
    damaged[3] ^= 1
    with pytest.raises(WeightsRefused, match="checksum"):
        await run(engine, damaged)
    assert engine.phases == []


@pytest.mark.parametrize(
    ("hang", "raises"),
    [("pause", PushLate), ("load", WorkerBroken), ("resume", WorkerBroken), ("checksums", WorkerBroken)],
)
async def test_the_phase_that_was_late_is_the_reason(hang: str, raises: type[Exception]) -> None:
    phase = {"checksums": "verify"}.get(hang, hang)
    with pytest.raises(raises) as caught:
        await run(FakeEngine(hang=hang), **{f"{phase}_s": 0.05})
    assert caught.value.reason == f"{phase}_deadline"  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (str(caught.value), f"{phase}_deadline")


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
    engine: FakeEngine, raises: type[Exception]
) -> None:
    with pytest.raises(raises) as caught:
        await run(engine, deadline_s=0.5)
    assert not isinstance(caught.value, WorkerBroken)
    assert engine.phases[-1] == "resume"


@pytest.mark.parametrize(
    "engine",
    [
        FakeEngine(fail="load"),
        FakeEngine(hang="load"),
        FakeEngine(fail="finish 7"),
    ],
    ids=["load fails", "load hangs", "finish fails"],
)
async def test_whatever_fails_while_loading_never_resumes(engine: FakeEngine) -> None:
    with pytest.raises(WorkerBroken):
        await run(engine, deadline_s=0.5)
    assert "resume" not in engine.phases


@pytest.mark.parametrize(
    "engine", [FakeEngine(fail="checksums"), FakeEngine(loads="old")], ids=["checksums fail", "nothing moved"]
)
async def test_an_engine_that_does_not_hold_what_was_pushed_is_thrown_away_and_draws_no_token(
    engine: FakeEngine,
) -> None:
    with pytest.raises(WorkerBroken):
        await run(engine)
    assert "resume" not in engine.phases


async def test_an_engine_that_holds_other_parameters_than_the_versions_other_workers_draws_no_token() -> None:
    engine = FakeEngine()
    engine.agrees = False
    with pytest.raises(WorkerBroken) as broken:
        await run(engine)
    assert broken.value.reason == DIGEST_MISMATCH and "resume" not in engine.phases


async def test_an_engine_that_does_not_resume_is_broken() -> None:
    with pytest.raises(WorkerBroken, match="resume"):
        await run(FakeEngine(fail="resume"))


async def test_a_cancelled_load_does_not_leave_half_loaded_weights_in_service() -> None:
    engine = FakeEngine(hang="load")
    task = asyncio.create_task(run(engine))
    while "load" not in engine.phases:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(WorkerBroken):
        await task
    assert "resume" not in engine.phases


async def test_a_push_of_the_wrong_length_touches_nothing() -> None:
    engine = FakeEngine()
    with pytest.raises(WeightsRefused, match="15 bytes came, the manifest says 16"):
        await run(engine, PACKED[:15])
    assert engine.phases == []


@pytest.mark.parametrize(
    ("before", "after", "exact", "moved"),
    [
        (
            LoadedWeights("a", None),
            LoadedWeights("a", "p"),
            True,
            False,
        ),  # the first push may bring what the engine was built from
        (LoadedWeights("a", None), LoadedWeights("b", "p"), True, True),
        (LoadedWeights("a", "p"), LoadedWeights("b", "q"), True, True),
        (LoadedWeights("a", "p"), LoadedWeights("a", "p"), True, False),
        (LoadedWeights("a", "p"), LoadedWeights("a", "q"), False, False),  # the difference was rounded away
    ],
)
def test_parameters_move_as_the_pushes_do(
    before: LoadedWeights, after: LoadedWeights, exact: bool, moved: bool
) -> None:
    assert check_moved(before, after, exact) is moved


@pytest.mark.parametrize(
    ("before", "after"),
    [(LoadedWeights("a", "p"), LoadedWeights("a", "q")), (LoadedWeights("a", "p"), LoadedWeights("b", "p"))],
)
def test_parameters_that_contradict_the_push_are_not_served(before: LoadedWeights, after: LoadedWeights) -> None:
    with pytest.raises(WorkerBroken):
        check_moved(before, after, exact=True)
