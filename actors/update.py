"""One weight update, phase by phase: stage -> pause -> load -> verify -> resume, under one deadline.

Invariants:
- A failure before anything was loaded leaves the engine serving its old version.
- A failure after that never resumes the engine: `WorkerBroken` tells the owner to throw it away.
- The staged file is gone when this returns, however it returns.

Pure choreography against `Updatable`; the real one is `actors.engine.Engine`.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from actors.errors import WeightsRefused, WorkerBroken
from protocol.types import WeightManifest

SHARED_MEMORY = Path("/dev/shm")
FILE_PREFIX = "advgame-weights-"
RESUME_DEADLINE_S = 15.0  # resuming is one message; an engine that does not answer it is as good as dead
REFUSED = "weights refused:"  # vLLM hands an error over as text, so this marks the harmless kind


class Updatable(Protocol):
    """An engine that can be given new weights. `dtype` is what it holds them in, by torch's name."""

    dtype: str

    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def start_update(self) -> None: ...
    async def load(self, update_info: dict[str, Any]) -> None: ...
    async def finish_update(self, version: int) -> None: ...
    async def checksums(self) -> dict[str, str]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What an engine holds: `digest` over its parameters, and the checksum of the push that brought them, if one did."""

    digest: str
    packed: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LoadReport:
    """How a load went. `version` is what the worker serves now; `ignored` if that was already as new as the push.

    `moved`: the parameters differ from those before. Seconds: `pause_s` from the request to pause until sampling went on,
    `load_s` the part of it that loaded, `total_s` everything, staging included.
    """

    version: int
    checksum_after: str
    pause_s: float
    load_s: float
    total_s: float
    moved: bool
    ignored: bool = False


def digest_of(checksums: Mapping[str, str]) -> str:
    """One digest for a whole model, whatever order its parameters come in."""
    lines = "".join(f"{name}={checksums[name]}\n" for name in sorted(checksums))
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def check_moved(before: Held, after: Held, exact: bool) -> bool:
    """Whether the parameters changed. Raises `WorkerBroken` where that contradicts what was pushed.

    The same push twice must give the same parameters. A different push must give different ones, unless the engine rounds
    what it gets (not `exact`). The first push is exempt: it may bring the very weights that the engine was built from.
    """
    moved = before.digest != after.digest
    if before.packed is None:
        return moved
    if moved and before.packed == after.packed:
        raise WorkerBroken("the same weights were pushed but the engine's parameters changed")
    if exact and not moved and before.packed != after.packed:
        raise WorkerBroken("new weights were pushed but the engine's parameters did not change")
    return moved


def staging_dir(nbytes: int) -> Path:
    """Shared memory where it exists and has room, else the temporary directory."""
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > nbytes:
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


def sweep_staged(directory: Path) -> None:
    """Removes what a killed process of ours left there; the name of a staged file holds its writer's pid."""
    for path in directory.glob(f"{FILE_PREFIX}*"):
        pid = path.name.removeprefix(FILE_PREFIX).partition("-")[0]
        with contextlib.suppress(FileNotFoundError):
            if pid.isdigit() and not Path(f"/proc/{pid}").exists() and path.stat().st_uid == os.getuid():
                path.unlink()


def _write(descriptor: int, packed: Any) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(memoryview(packed).cast("B"))


async def update(
    engine: Updatable, manifest: WeightManifest, packed: Any, deadline_s: float, before: Held
) -> LoadReport:
    """Brings `manifest.version` into a serving engine.

    Args:
        packed: bytes-like (uint8 array), `manifest.nbytes` long.
        deadline_s: for everything but the last `resume`.
        before: what the engine holds now.

    Raises:
        WeightsRefused, TimeoutError, OSError: nothing was loaded; the engine serves on.
        WorkerBroken: the engine is paused for good and must be thrown away.
    """
    started = time.perf_counter()
    found = memoryview(packed).nbytes
    if found != manifest.nbytes:
        raise WeightsRefused(
            f"{REFUSED} version {manifest.version} has {found} bytes, its manifest says {manifest.nbytes}"
        )
    descriptor, name = tempfile.mkstemp(prefix=f"{FILE_PREFIX}{os.getpid()}-", dir=staging_dir(found))
    path = Path(name)
    paused = dirty = False
    pause_started = load_started = load_s = 0.0
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.to_thread(_write, descriptor, packed)
            pause_started = time.perf_counter()
            paused = True  # before it is so: a pause that times out may still take effect
            await engine.pause()
            await engine.start_update()
            load_started = time.perf_counter()
            dirty = True
            await _load(engine, manifest, path)
            await engine.finish_update(manifest.version)
            load_s = time.perf_counter() - load_started
            after = Held(digest_of(await engine.checksums()), manifest.checksum)
            exact = all(spec.dtype == engine.dtype for spec in manifest.tensors)
            moved = check_moved(before, after, exact)
            dirty = False
    except WeightsRefused:
        dirty = False
        raise
    except BaseException as error:
        if dirty:
            raise WorkerBroken(f"loading version {manifest.version} failed half-way: {type(error).__name__}") from error
        raise
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240  # shared memory: nothing to wait for
        if paused and not dirty:
            await _resume(engine)
    done = time.perf_counter()
    return LoadReport(manifest.version, after.digest, done - pause_started, load_s, done - started, moved)


async def _load(engine: Updatable, manifest: WeightManifest, path: Path) -> None:
    tensors = [dataclasses.asdict(spec) for spec in manifest.tensors]
    info = {"path": str(path), "tensors": tensors, "checksum": manifest.checksum, "nbytes": manifest.nbytes}
    try:
        await engine.load(info)
    except Exception as error:
        reason = str(error)
        if REFUSED in reason:
            raise WeightsRefused(reason[reason.index(REFUSED) :]) from None
        raise


async def _resume(engine: Updatable) -> None:
    try:
        async with asyncio.timeout(RESUME_DEADLINE_S):
            await engine.resume()
    except Exception as error:
        raise WorkerBroken(f"the engine did not resume: {type(error).__name__}") from error
