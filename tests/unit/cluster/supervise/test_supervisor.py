"""The supervisor over fake handles: everybody is looked at, nobody is held up, and what is done is done once."""

import asyncio
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from cluster.supervise import supervisor as module
from cluster.supervise.supervisor import GenerationKeeper, JudgeKeeper, Supervised, Supervisor, supervise
from protocol.exchange import Vitals
from protocol.recipe import HealthConfig
from tests.unit.workers import FakeWorker, Remote, until

CONFIG = HealthConfig(every_s=0.02, stuck_s=0.2, silent_s=0.2, misses=3, replace_s=0.1)


class FakeKeeper:
    """Starts and ends fake workers; a start lasts until `go`."""

    def __init__(self, workers: dict[str, FakeWorker]) -> None:
        self.workers = workers
        self.did: list[tuple[str, str]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None
        self.seen_to: set[str] = set()  # another replaces these

    async def start(self, role: str) -> None:
        self.did.append((role, "start"))
        await self.go.wait()
        if self.error is not None:
            raise self.error
        self.workers[role].ready = True

    async def replace(self, role: str, reason: str) -> bool:
        self.did.append((role, reason))
        if role in self.seen_to:
            return False
        self.workers[role].die()
        self.workers[role].come_back(ready=False)
        return True


async def never(body: Any) -> Any:
    await asyncio.sleep(60.0)


class Bench:
    def __init__(self, *roles: str) -> None:
        self.workers = {role: FakeWorker(never) for role in roles}
        self.keeper = FakeKeeper(self.workers)
        self.missed: dict[str, int] = {}
        looked_after = {role: Supervised(worker, self.keeper, 30.0) for role, worker in self.workers.items()}
        self.supervisor = Supervisor(looked_after, CONFIG, lambda: self.missed)


async def test_a_worker_without_an_engine_is_started_once() -> None:
    b = Bench("judge-0", "judge-1")
    b.workers["judge-0"].ready = False
    b.keeper.go.clear()
    async with supervise(b.supervisor):
        await until(lambda: b.keeper.did)
        await asyncio.sleep(10 * CONFIG.every_s)
        assert b.keeper.did == [("judge-0", "start")]
        assert (b.supervisor.state("judge-0"), b.supervisor.state("judge-1")) == ("down", "ready")
        b.keeper.go.set()
        await until(lambda: b.supervisor.state("judge-0") == "ready")
    assert b.keeper.did == [("judge-0", "start")] and not b.supervisor.replaced


async def test_a_look_from_before_a_start_ended_starts_nothing_again() -> None:
    b = Bench("judge-0")
    worker = b.workers["judge-0"]
    worker.ready = False
    b.keeper.go.clear()
    looks = 0

    async def health() -> Vitals:
        """The second look finds it down, and tells when the start has ended."""
        nonlocal looks
        looks += 1
        found = Vitals(ready=worker.ready)
        if looks == 2:
            b.keeper.go.set()
            await until(lambda: worker.ready)
        return found

    worker.health = Remote(health)
    async with supervise(b.supervisor):
        await until(lambda: looks > 4 and b.supervisor.state("judge-0") == "ready")
    assert b.keeper.did == [("judge-0", "start")]


async def test_a_worker_that_hangs_holds_up_no_other_and_is_replaced_and_started() -> None:
    b = Bench("judge-0", "judge-1")
    async with supervise(b.supervisor):
        await asyncio.sleep(3 * CONFIG.every_s)
        b.workers["judge-0"].hang()
        b.workers["judge-1"].ready = False
        await until(lambda: b.keeper.did)
        assert b.keeper.did == [("judge-1", "start")]  # long before the other is known to hang
        await until(lambda: b.supervisor.state("judge-0") == "suspect")
        await until(lambda: b.supervisor.state("judge-0") == "ready")
    assert b.keeper.did[1:] == [("judge-0", "silent"), ("judge-0", "start")]
    assert b.supervisor.replaced == {"silent": 1}


async def test_a_worker_that_died_is_started_when_it_is_back() -> None:
    b = Bench("judge-0")
    async with supervise(b.supervisor):
        b.workers["judge-0"].die()
        await until(lambda: b.supervisor.state("judge-0") == "down")
        assert b.keeper.did == []
        b.workers["judge-0"].come_back(ready=False)
        await until(lambda: b.supervisor.state("judge-0") == "ready")
    assert b.keeper.did == [("judge-0", "start")]


async def test_replacements_are_counted_by_their_reason() -> None:
    b = Bench("judge-0", "judge-1")
    b.missed = {"judge-1": 3}
    async with supervise(b.supervisor):
        await until(lambda: b.supervisor.replaced)
        b.missed = {}
        b.workers["judge-0"].hang()
        await until(lambda: len(b.supervisor.replaced) == 2)
    assert b.supervisor.replaced == {"deadlines": 1, "silent": 1}


async def test_a_start_that_fails_is_asked_for_again_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_PAUSE_S", 0.1)
    b = Bench("judge-0")
    b.workers["judge-0"].ready = False
    b.keeper.error = TimeoutError("no answer")
    began = asyncio.get_running_loop().time()
    async with supervise(b.supervisor):
        await until(lambda: len(b.keeper.did) >= 3)
        assert asyncio.get_running_loop().time() - began >= 0.1 + 0.2
        b.keeper.error = None
        await until(lambda: b.supervisor.state("judge-0") == "ready")
        await until(lambda: not b.supervisor._failures)  # what failed before it was up is forgotten


async def test_what_no_start_may_raise_ends_supervision() -> None:
    b = Bench("judge-0")
    b.workers["judge-0"].ready = False
    b.keeper.error = KeyError("a bug")
    async with supervise(b.supervisor):
        await until(lambda: b.supervisor._failed is not None)
        with pytest.raises(KeyError):
            b.supervisor.check()


async def test_a_start_that_fails_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_PAUSE_S", 0.01)
    b = Bench("judge-0")
    b.workers["judge-0"].ready = False
    b.keeper.error = TimeoutError("no answer")
    async with supervise(b.supervisor):
        await until(lambda: len(b.keeper.did) >= 2)
        b.keeper.error = None
        await until(lambda: b.supervisor.state("judge-0") == "ready")
    assert set(b.keeper.did) == {("judge-0", "start")} and not b.supervisor.replaced


async def test_a_look_that_raises_is_no_answer() -> None:
    b = Bench("judge-0")

    async def health() -> Any:
        raise RayTaskError("health", "traceback", ValueError("a bug"))

    b.workers["judge-0"].health = Remote(health)
    async with supervise(b.supervisor):
        await until(lambda: b.supervisor.replaced)
    assert set(b.supervisor.replaced) == {"silent"}


async def test_an_error_of_its_own_is_raised_at_the_end() -> None:
    b = Bench("judge-0")

    def missed() -> dict[str, int]:
        raise KeyError("a bug")

    b.supervisor._missed = missed
    with pytest.raises(KeyError):
        async with supervise(b.supervisor):
            await asyncio.sleep(5 * CONFIG.every_s)


async def test_the_end_of_supervision_ends_what_it_began() -> None:
    b = Bench("judge-0")
    b.workers["judge-0"].ready = False
    b.keeper.go.clear()
    async with supervise(b.supervisor):
        await until(lambda: b.keeper.did)
    await asyncio.sleep(0.01)
    b.keeper.go.set()
    await asyncio.sleep(0.01)
    assert not b.workers["judge-0"].ready


async def test_a_judge_is_asked_to_start_and_killed_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[Any, bool]] = []
    monkeypatch.setattr(module.ray, "kill", lambda handle, no_restart: killed.append((handle, no_restart)))
    started: list[str] = []

    class Judge:
        async def _start(self) -> None:
            started.append("judge-1")

        @property
        def start(self) -> Any:
            return Plain(self._start)

    judge = Judge()
    keeper = JudgeKeeper({"judge-1": judge}, 5.0)
    await keeper.start("judge-1")
    await keeper.replace("judge-1", "silent")
    assert started == ["judge-1"] and killed == [(judge, False)]


class Plain(Remote):
    """With whatever options."""

    def options(self, **options: Any) -> "Plain":
        return self


async def test_a_generation_worker_is_its_publishers_to_start_and_to_replace() -> None:
    told: list[tuple[Any, ...]] = []

    async def restart(*args: Any) -> None:
        told.append(args)

    class Publisher:
        pass

    publisher: Any = Publisher()
    publisher.restart = Plain(restart)
    keeper = GenerationKeeper(publisher, {"generation-attacker-0": "attacker-0"})
    await keeper.start("generation-attacker-0")
    await keeper.replace("generation-attacker-0", "stuck")
    assert told == [("attacker-0", "engine_lost", False), ("attacker-0", "stuck", True)]


async def test_what_another_sees_to_is_not_counted_as_replaced() -> None:
    b = Bench("generation-defender-0")
    b.keeper.seen_to.add("generation-defender-0")
    b.missed["generation-defender-0"] = CONFIG.misses
    async with supervise(b.supervisor):
        await until(lambda: b.keeper.did)
    assert b.keeper.did[0] == ("generation-defender-0", "deadlines") and not b.supervisor.replaced


async def test_supervision_that_ended_by_an_error_says_so_while_the_run_goes_on() -> None:
    b = Bench("judge-0")
    b.supervisor.check()

    def broken() -> dict[str, int]:
        raise KeyError("a fault of ours")

    b.supervisor._missed = broken
    with pytest.raises(KeyError):
        async with supervise(b.supervisor):
            async with asyncio.timeout(10):
                while True:
                    b.supervisor.check()
                    await asyncio.sleep(CONFIG.every_s)
