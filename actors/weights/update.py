"""One weight update of a serving engine: send -> pause -> load -> verify -> resume, each phase with a deadline of its own.

Invariants
- The bytes are complete and their checksum is verified before generation is paused: a push that is refused costs nothing.
- A failure before anything was loaded leaves the engine serving its old version.
- No token is drawn from weights that were not verified: the bytes were, where they lie, before anything was loaded (but for `nccl`
  and `ipc`, whose bytes come while they are loaded); the parameters changed as the pushes did, and equal those of the version's
  other workers. All of that is before `resume`, and its seconds count in the pause.
- A failure from the first overwritten parameter to the last check never resumes the engine: it raises `WorkerBroken`, which tells
  the owner to throw the engine away.
- Generation stands still only from the end of `pause` to the end of `resume`.

It only orders the phases, against `Updatable`; the real one is `actors.engine.engine.Engine`.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from actors.errors import JoinFailed, PushLate, WeightsRefused, WorkerBroken
from actors.weights.joining import FAILED, JOINED
from actors.weights.receive import REFUSED, Mappings, receive
from protocol.errors import DIGEST_MISMATCH
from protocol.recipe import DeadlinesConfig
from protocol.shared import SharedFile
from protocol.types import NativeUpdate, WeightManifest

JOIN_POLL_S = 0.05  # each look is one message to the engine, between two of its steps

T = TypeVar("T")


class Updatable(Protocol):
    """An engine that can be given new weights. `dtype` is what it holds them in, by torch's name."""

    dtype: str

    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def start_update(self) -> None: ...
    async def load(self, update_info: dict[str, Any]) -> None: ...
    async def finish_update(self, version: int) -> None: ...
    async def checksums(self) -> dict[str, str]: ...


class Joinable(Protocol):
    """An engine that can meet a learner; see `actors.engine.engine.Engine`."""

    async def begin_join(self, transport: str, native: dict[str, Any]) -> None: ...
    async def read_join(self) -> list[str]: ...
    async def abandon_join(self) -> None: ...


async def join(engine: Joinable, transport: str, native: dict[str, Any], limit_s: float) -> None:
    """See `GenerationWorker.join`."""
    try:
        async with asyncio.timeout(limit_s):
            await engine.begin_join(transport, native)
            while set(states := await engine.read_join()) != {JOINED}:
                failed = [state for state in states if state.startswith(FAILED)]
                if failed:
                    raise JoinFailed(failed[0])
                await asyncio.sleep(JOIN_POLL_S)
    except TimeoutError:
        await engine.abandon_join()
        raise PushLate(f"join: not all members came within {limit_s:.3g} s", "join_deadline") from None
    except BaseException:
        await engine.abandon_join()
        raise


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What an engine holds: `digest` over its parameters, and the `checksum` of the push that brought them, if one did."""

    digest: str
    checksum: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LoadReport:
    """How a load went. `version` is what the worker serves now; `ignored` if that was already as new as the push.

    `moved`: the parameters differ from those before. `pause_s`: seconds that generation stood still. `phases`: seconds of each.
    `layout`: what `checksum_after` depends on beside the weights.
    """

    version: int
    checksum_after: str
    moved: bool
    pause_s: float = 0.0
    phases: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ignored: bool = False
    layout: str = ""


def digest_of(checksums: Mapping[str, str]) -> str:
    """One digest for a whole model, whatever order its parameters come in."""
    lines = "".join(f"{name}={checksums[name]}\n" for name in sorted(checksums))
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def check_moved(before: LoadedWeights, after: LoadedWeights, exact: bool) -> bool:
    """Whether the parameters changed. Raises `WorkerBroken` where that contradicts what was pushed.

    The same push twice must give the same parameters. A different push must give different ones, unless the engine rounds
    what it gets (not `exact`). The first push is exempt: it may bring the very weights that the engine was built from.
    """
    moved = before.digest != after.digest
    if before.checksum is None:
        return moved
    if moved and before.checksum == after.checksum:
        raise WorkerBroken("the same weights were pushed but the engine's parameters changed", DIGEST_MISMATCH)
    if exact and not moved and before.checksum != after.checksum:
        raise WorkerBroken("new weights were pushed but the engine's parameters did not change", DIGEST_MISMATCH)
    return moved


class Phases:
    """Keeps the phases' deadlines and takes their time.

    Args:
        limits: of each phase.
        deadline_s: for all of them together, from now.
    """

    def __init__(self, limits: DeadlinesConfig, deadline_s: float) -> None:
        self._limits, self._end = limits, time.monotonic() + deadline_s
        self.seconds: dict[str, float] = {}

    @contextlib.asynccontextmanager
    async def __call__(self, name: str) -> AsyncIterator[None]:
        """One phase. Raises `PushLate` at its end, or at the end of all."""
        began = time.monotonic()
        limit = getattr(self._limits, f"{name}_s")
        if name != "resume":  # an engine that was paused is resumed however late the rest was
            limit = min(limit, self._end - began)
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            raise PushLate(f"push: {name} was not done within {max(limit, 0.0):.3g} s", f"{name}_deadline") from None
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


async def update(
    engine: Updatable,
    manifest: WeightManifest,
    source: Any,
    before: LoadedWeights,
    phases: Phases,
    mappings: Mappings,
    confirm: Callable[[str], Awaitable[bool]],
) -> LoadReport:
    """Brings `manifest.version` into a serving engine.

    Args:
        source: see `receive`; or a `NativeUpdate`, whose bytes come to the GPU while they are loaded.
        before: what the engine holds now.
        confirm: whether the digest equals those of the version's other workers, as far as anybody knows.

    Raises:
        WeightsRefused, PushLate, OSError: nothing was loaded; the engine serves on.
        WorkerBroken: the engine must be thrown away.
    """
    if isinstance(source, NativeUpdate):
        info: dict[str, Any] = {"native": source.info}
    else:
        async with phases("send"):
            buffer = await asyncio.to_thread(receive, manifest, source, mappings)
        info = {
            "file": dataclasses.asdict(source if isinstance(source, SharedFile) else buffer.file()),
            "used_again": isinstance(source, SharedFile),
            "tensors": [dataclasses.asdict(spec) for spec in manifest.tensors],
        }
    exact = all(spec.dtype == engine.dtype for spec in manifest.tensors)

    async def verify() -> tuple[LoadedWeights, bool]:
        after = LoadedWeights(digest_of(await engine.checksums()), manifest.checksum)
        moved = check_moved(before, after, exact)
        if not await confirm(after.digest):
            raise WorkerBroken("other workers of the version hold other parameters", DIGEST_MISMATCH)
        return after, moved

    stood_still, (after, moved) = await _overwrite(engine, manifest.version, info, phases, verify)
    return LoadReport(manifest.version, after.digest, moved, stood_still, phases.seconds)


async def _overwrite(
    engine: Updatable, version: int, info: dict[str, Any], phases: Phases, verify: Callable[[], Awaitable[T]]
) -> tuple[float, T]:
    """From pause to resume. Gives the seconds that generation stood still, and what `verify` gives."""
    dirty = False
    still_since = time.monotonic()
    try:
        async with phases("pause"):
            await engine.pause()
        still_since = time.monotonic()
        async with phases("load"):
            await engine.start_update()
            dirty = True
            await _load(engine, info)
            await engine.finish_update(version)
        async with phases("verify"):
            verified = await verify()
        dirty = False
    except WeightsRefused:
        dirty = False
        raise
    except BaseException as error:
        if dirty:
            raise _make_broken(version, error) from error
        raise
    finally:
        if not dirty:  # also after a pause that was late: it may still take effect
            await _resume(engine, phases)
    return time.monotonic() - still_since, verified


def _make_broken(version: int, error: BaseException) -> WorkerBroken:
    why = error.reason if isinstance(error, PushLate | WorkerBroken) else type(error).__name__
    return WorkerBroken(f"loading version {version} failed half-way: {why}", why)


async def _load(engine: Updatable, info: dict[str, Any]) -> None:
    try:
        await engine.load(info)
    except Exception as error:
        reason = str(error)
        if REFUSED in reason:
            raise WeightsRefused(reason[reason.index(REFUSED) :]) from None
        raise


async def _resume(engine: Updatable, phases: Phases) -> None:
    try:
        async with phases("resume"):
            await engine.resume()
    except Exception as error:
        why = error.reason if isinstance(error, PushLate) else type(error).__name__
        raise WorkerBroken(f"the engine did not resume: {why}", why) from error
