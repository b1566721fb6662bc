"""A generation worker's start and end around a fake engine: nothing blocks its loop, and no byte comes twice."""

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

from actors.engine.engine import Engine
from actors.errors import WeightsRefused
from actors.generation import GenerationWorker
from protocol.packed import checksum
from protocol.recipe import GenerationConfig
from protocol.shared import SharedFile
from protocol.types import TensorSpec, WeightManifest

PACKED = np.arange(16, dtype=np.uint8)


def manifest(version: int, digest: str) -> WeightManifest:
    return WeightManifest("attacker", version, (TensorSpec("w", "float32", (4,), 0, 16),), 16, digest)


class FakeEngine:
    """Takes whatever it is given. `hangs`: its digests never come; `ends_s`: its processes need that long to end."""

    dtype = "float32"
    running = 0

    def __init__(self, hangs: bool = False, ends_s: float = 0.0) -> None:
        self.hangs, self.ends_s = hangs, ends_s
        self.loaded = 0
        self.given_up, self.closed = False, threading.Event()

    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def start_update(self) -> None: ...
    async def load(self, update_info: dict[str, Any]) -> None:
        self.loaded += 1

    async def finish_update(self, version: int) -> None: ...

    async def checksums(self) -> dict[str, str]:
        if self.hangs:
            await asyncio.Event().wait()
        return {"w": str(self.loaded)}

    def give_up(self) -> None:
        self.given_up = True

    def close(self) -> None:
        time.sleep(self.ends_s)
        self.closed.set()


class Versions:
    """A source whose bytes are damaged while version 1 is the newest; they are asked for once for each version."""

    def __init__(self, newer: bool) -> None:
        self.newer = newer
        self.fetched: list[int] = []
        self.confirms = True

    async def chosen(self, player: str) -> int:
        return 2 if self.newer and self.fetched else 1

    async def newest(self, player: str) -> Any:
        version = await self.chosen(player)
        self.fetched.append(version)
        return manifest(version, checksum(PACKED) if version == 2 else "damaged"), PACKED

    async def confirm(self, player: str, version: int, layout: str, digest: str) -> bool:
        return self.confirms

    async def fetch(self, manifest: WeightManifest, file: SharedFile) -> SharedFile:
        return file


def worker_of(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine, versions: Any = None, **config: Any) -> Any:
    async def build(*_: Any, **__: Any) -> Any:
        return engine

    monkeypatch.setattr(Engine, "build", build)
    return GenerationWorker("attacker", "m", GenerationConfig(**config), versions)


async def test_a_refusal_costs_no_second_copy_of_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Versions(newer=False)
    with pytest.raises(WeightsRefused):
        await worker_of(monkeypatch, FakeEngine(), versions).start()
    assert versions.fetched == [1], "a number is asked for, not the version"


async def test_bytes_that_a_newer_version_took_the_place_of_are_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Versions(newer=True)
    assert await worker_of(monkeypatch, FakeEngine(), versions).start() == 2
    assert versions.fetched == [1, 2]


async def test_the_first_look_at_the_parameters_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(hangs=True)
    async with asyncio.timeout(20.0):
        with pytest.raises(TimeoutError):
            await worker_of(monkeypatch, engine, start_deadline_s=0.05).start()
    assert engine.given_up and engine.closed.is_set()


async def test_an_engine_that_takes_long_to_end_holds_up_nobody_but_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = FakeEngine(ends_s=1.0)
    worker = worker_of(monkeypatch, broken)
    await worker.start()
    began = time.monotonic()
    worker._discard(broken)
    await asyncio.sleep(0)
    assert time.monotonic() - began < 0.5 and not broken.closed.is_set()
    assert broken.given_up, "who waited for it has heard at once"
    fresh = FakeEngine()

    async def build(*_: Any, **__: Any) -> Any:
        assert broken.closed.is_set(), "its memory is free"
        return fresh

    monkeypatch.setattr(Engine, "build", build)
    await worker.start()
    await worker.shutdown()
