"""A stall's folder, on a real Ray: the stack of an actor whose event loop hangs, and where another's tasks wait."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.observe.process import Observing, observed
from cluster.run.stall import dump_stall
from cluster.rundir import RunDir
from tests.integration.ray_actors import Actors


class Worker:
    """One that waits as a game does, or hangs with its event loop."""

    async def ready(self) -> bool:
        return True

    async def wait_for_an_engine(self) -> None:
        await asyncio.Event().wait()

    async def block_the_loop(self) -> None:
        self._hang()

    def _hang(self) -> None:
        time.sleep(600)


def start(actors: Actors, run_dir: RunDir, role: str) -> Any:
    part = observed(Worker, Observing(run_dir.path.name, run_dir), role, "nothing")
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 10, "name": f"{run_dir.path.name}/{role}"}
    handle = actors.keep(ray.remote(part).options(**options).remote())
    assert ray.get(handle.ready.remote(), timeout=60)
    return handle


@pytest.mark.timeout(120)
async def test_a_hung_actors_stack_is_in_the_folder(actors: Actors, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "stuck")
    run_dir.logs.mkdir(parents=True)
    hung, waiting = start(actors, run_dir, "judge-0"), start(actors, run_dir, "rollout-0")
    calls = [hung.block_the_loop.remote(), *(waiting.wait_for_an_engine.remote() for _ in range(3))]
    await asyncio.sleep(1.0)
    began = time.monotonic()
    folder = await dump_stall(run_dir, {"judge-0": hung, "rollout-0": waiting})
    assert time.monotonic() - began < 20.0
    assert folder.parent == run_dir.path and folder.name.startswith("stall-")
    judge, rollout = (folder / "judge-0.txt").read_text(), (folder / "rollout-0.txt").read_text()
    by_faulthandler, by_py_spy = judge.split("by faulthandler ==")[1].split("by py-spy ==")[:2]
    assert "_hang" in by_faulthandler and "block_the_loop" in by_faulthandler
    assert "_hang" in by_py_spy or "nothing: py-spy" in by_py_spy
    assert "not told: its event loop did not answer" in judge
    assert "3 x" in rollout and "wait_for_an_engine" in rollout
    assert [file.name for file in folder.glob("gpu-*.txt")], "and whether there are GPUs"
    del calls
