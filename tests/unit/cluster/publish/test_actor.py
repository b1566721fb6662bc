"""The publisher in this process, without Ray: what it says to learners that ask twice, and after it was restarted."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors.weights.update import LoadReport
from cluster.publish import actor
from cluster.publish import workers as workers_module
from cluster.publish.actor import WeightPublisher
from cluster.publish.holder import Holder
from protocol.errors import VersionGone
from protocol.recipe import PushConfig
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import WeightManifest
from tests.unit.cluster.publish.nodes import Local


class Worker:
    """A generation worker that loads when it is let through."""

    def __init__(self) -> None:
        self.version = 0
        self.gate = asyncio.Event()
        self.loading: list[int] = []
        self.joins = asyncio.Event()
        self.digest = "x"
        self.error: Exception | None = None

    async def start(self) -> int:
        return self.version

    async def load(self, manifest: WeightManifest, file: Any, deadline_s: float, limits: Any) -> LoadReport:
        self.loading.append(manifest.version)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.version = manifest.version
        return LoadReport(manifest.version, self.digest, True, layout="l")

    async def join(self, transport: str, native: Any, limit_s: float) -> None:
        await asyncio.wait_for(self.joins.wait(), limit_s)


@pytest.fixture(autouse=True)
def one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))


def manifest(version: int) -> WeightManifest:
    return WeightManifest("attacker", version, (), 8, "", step=version)


KEPT: list[SharedBuffer] = []


def file() -> SharedFile:
    KEPT.append(SharedBuffer.create(8))
    return KEPT[-1].file("here")


async def until(true: Any) -> None:
    async with asyncio.timeout(20.0):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_asked_twice_it_gives_nothing_back_that_is_in_use() -> None:
    """R22: the answer to `publish` was lost, the learner asks again, and a worker is loading the version."""
    publisher, worker = WeightPublisher(PushConfig()), Worker()
    await publisher.register("attacker", [Local(worker)])
    assert await publisher.wait_delivered("attacker", 0, 20.0)
    left = file()
    first = await publisher.publish(manifest(1), left)
    await until(lambda: worker.loading == [1])
    assert first == await publisher.publish(manifest(1), left) and first.versions == {1}
    assert (await publisher.publish(manifest(2), file())).versions == {1, 2}, "1 is read, 2 is the newest"
    worker.gate.set()
    assert await publisher.wait_delivered("attacker", 2, 20.0)
    assert (await publisher.holding("attacker")).versions == {2}


async def test_a_worker_that_starts_under_a_restarted_publisher_waits_for_the_version_that_there_was() -> None:
    publisher = WeightPublisher(PushConfig())
    starting = asyncio.create_task(publisher.newest("attacker", "attacker-0", "here"))
    await asyncio.sleep(0.01)
    assert not starting.done(), "who it serves, and since when, nobody has said yet"
    await publisher.register("attacker", [], newest=7)
    await asyncio.sleep(0.01)
    assert not starting.done() and await publisher.newest_version("attacker") == 7
    left = file()
    await publisher.publish(manifest(7), left)
    found = await starting
    assert found is not None and (found[0].version, found[1].inode) == (7, left.inode)
    assert not found[2], "it is nobody that is known: a newer version may take its place"


class Starting(Worker):
    """Reads the newest version for as long as the gate is shut."""

    def __init__(self, publisher: WeightPublisher) -> None:
        super().__init__()
        self.publisher = publisher
        self.found: Any = None

    async def start(self) -> int:
        self.found = await self.publisher.newest("attacker", "attacker-0", "here")
        await self.gate.wait()
        return int(self.found[0].version)


async def test_what_a_starting_worker_reads_is_not_given_back_before_it_has_started() -> None:
    publisher = WeightPublisher(PushConfig())
    await publisher.publish(manifest(1), file())
    worker = Starting(publisher)
    await publisher.register("attacker", [Local(worker)])
    await until(lambda: worker.found is not None)
    assert worker.found[2] and (await publisher.publish(manifest(2), file())).versions == {1, 2}
    worker.gate.set()
    assert await publisher.wait_delivered("attacker", 2, 20.0)
    assert (await publisher.holding("attacker")).versions == {2}


async def test_it_does_not_start_with_an_older_version_when_nobody_leaves_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actor, "REJOIN_S", 0.05)
    publisher = WeightPublisher(PushConfig())
    await publisher.register("attacker", [], newest=7)
    with pytest.raises(VersionGone, match="version 7 of the attacker"):
        await publisher.newest("attacker", "attacker-0", "here")
    await publisher.register("defender", [])
    assert await publisher.newest("defender", "defender-0", "here") is None, "its model folder is all there ever was"


async def test_two_processes_of_the_publisher_have_two_names() -> None:
    one, two = [await WeightPublisher(PushConfig()).holding("attacker") for _ in range(2)]
    assert one.holder != two.holder and one.versions == two.versions == frozenset()


async def test_a_native_transport_is_not_tried_after_two_failures_until_a_worker_is_new() -> None:
    publisher, worker = WeightPublisher(PushConfig(), native={"attacker": "nccl"}), Worker()
    worker.gate.set()
    await publisher.register("attacker", [Local(worker)])
    assert await publisher.wait_delivered("attacker", 0, 20.0)
    for version, named in ((1, ["attacker-0"]), (2, ["attacker-0"]), (3, [])):
        await publisher.publish(manifest(version), file())
        assert await publisher.list_receivers("attacker", version) == named
        await publisher.give_up_send("attacker", version)
        assert await publisher.wait_delivered("attacker", version, 20.0)
    state = (await publisher.stats()).players["attacker"].transport
    assert (state.asked, state.in_use, state.failures, state.off_since) == ("nccl", "host", 2, 2)
    await publisher.register("attacker", [Local(worker), Local(Worker())])
    await publisher.publish(manifest(4), file())
    assert await publisher.list_receivers("attacker", 4) == ["attacker-0"]
    assert (await publisher.stats()).players["attacker"].transport.in_use == "nccl"
    await publisher.give_up_send("attacker", 4)


async def test_a_worker_whose_parameters_differ_from_the_others_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", lambda handle, no_restart: killed.append(handle))
    publisher, workers = WeightPublisher(PushConfig()), [Worker(), Worker(), Worker()]
    for worker in workers:
        worker.gate.set()
    workers[2].digest = "torn"
    handles = [Local(worker) for worker in workers]
    await publisher.register("attacker", handles)
    assert await publisher.wait_delivered("attacker", 0, 20.0)
    assert await publisher.confirm("attacker", 1, "l", "attacker-0", "x"), "before it serves"
    await publisher.publish(manifest(1), file())
    await until(lambda: killed)
    assert killed == [handles[2]]
    evictions = (await publisher.stats()).players["attacker"].evictions
    assert evictions == {"digest_mismatch": 1}


async def test_a_version_that_was_lost_with_a_node_is_left_again_and_no_worker_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_module, "AGAIN_S", 0.01)
    holders: list[Local] = []

    def start_holder(node: str) -> Local:
        holders.append(Local(Holder(node)))
        return holders[-1]

    publisher, worker = WeightPublisher(PushConfig(), start_holder=start_holder), Worker()
    worker.error = VersionGone("attacker", 1)
    await publisher.register("attacker", [Local(worker)])
    assert await publisher.wait_delivered("attacker", 0, 20.0)
    KEPT.append(SharedBuffer.create(8))
    left = KEPT[-1].file("learners")
    assert (await publisher.publish(manifest(1), left)).versions == {1}
    holders[0].lost = True  # and the worker finds the bytes gone
    worker.gate.set()
    await until(lambda: worker.loading == [1])
    async with asyncio.timeout(20.0):
        while (await publisher.holding("attacker")).versions:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    worker.error = None
    assert (await publisher.publish(manifest(1), left)).versions == {1}
    assert await publisher.wait_delivered("attacker", 1, 20.0)
    assert len(holders) == 2 and (await publisher.stats()).players["attacker"].evictions == {}
