"""Where versions lie: left without moving a byte, one copy a node, memory used again, gone when it is not needed."""

import asyncio
from typing import Any

import numpy as np
import pytest

from cluster.publish import holder
from cluster.publish.holder import Holder
from cluster.publish.versions import Versions
from protocol.errors import VersionGone
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import WeightManifest
from tests.unit.cluster.publish.nodes import Local

NBYTES = 1000


class Cluster:
    """A publisher's versions on the node "here", and the holders that were started on others."""

    def __init__(self) -> None:
        self.holders: dict[str, Local] = {}
        self.started: list[str] = []
        self.versions = Versions("here", self.start, lambda: self.own)
        self.own = Local(self.versions.local)
        self.kept: list[SharedBuffer] = []

    def start(self, node: str) -> Local:
        self.started.append(node)
        self.holders[node] = Local(Holder(node))
        return self.holders[node]

    async def publish(self, version: int, node: str = "here") -> None:
        """A learner on that node leaves a version, filled with its number."""
        buffer = SharedBuffer.create(NBYTES)
        np.frombuffer(buffer.view, np.uint8)[:] = version
        self.kept.append(buffer)
        await self.versions.take(WeightManifest("attacker", version, (), NBYTES, ""), buffer.file(node))

    async def file_on(self, version: int, node: str) -> SharedFile:
        return await self.versions.file_on("attacker", version, node)


def read(file: SharedFile) -> bytes:
    return bytes(SharedBuffer.open(file).view)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "CHUNK_BYTES", 300)


async def test_on_its_own_node_a_version_is_read_where_it_was_left() -> None:
    cluster = Cluster()
    await cluster.publish(7)
    file = await cluster.file_on(7, "here")
    assert file.inode == cluster.kept[0].inode and cluster.started == []
    cluster.kept.clear()  # the learner is gone
    assert read(file) == bytes([7]) * NBYTES


async def test_another_node_gets_one_copy_whatever_its_number_of_workers() -> None:
    cluster = Cluster()
    await cluster.publish(7)
    files = await asyncio.gather(*(cluster.file_on(7, "there") for _ in range(8)))
    assert len({file.inode for file in files}) == 1 and files[0].node == "there"
    assert read(files[0]) == bytes([7]) * NBYTES
    assert cluster.started == ["there"] and cluster.holders["there"].calls == ["copy"]
    assert cluster.own.calls == ["read"] * 4, "1,000 bytes in chunks of 300, once"


async def test_a_version_of_another_node_is_not_moved_until_a_worker_elsewhere_needs_it() -> None:
    cluster = Cluster()
    await cluster.publish(7, "learners")
    assert cluster.holders["learners"].calls == ["hold"]
    assert read(await cluster.file_on(7, "here")) == bytes([7]) * NBYTES
    assert read(await cluster.file_on(7, "there")) == bytes([7]) * NBYTES
    assert cluster.holders["learners"].calls == ["hold", *["read"] * 8], "straight from where it lies"
    assert cluster.own.calls == []


async def settle(cluster: Cluster) -> None:
    for _ in range(200):
        await asyncio.sleep(0.001)
        if not cluster.versions._dropping:
            break
    await asyncio.sleep(0.01)


async def test_what_is_not_needed_any_more_is_dropped_everywhere_and_its_memory_used_again() -> None:
    cluster = Cluster()
    await cluster.publish(1)
    old = await cluster.file_on(1, "there")
    await cluster.publish(2)
    cluster.versions.release("attacker", {2})
    await settle(cluster)
    with pytest.raises(VersionGone):
        await cluster.file_on(1, "there")
    new = await cluster.file_on(2, "there")
    assert new.inode == old.inode, "no new memory"
    assert read(new) == bytes([2]) * NBYTES


async def test_a_copy_that_is_under_way_when_its_version_is_dropped_is_dropped_when_it_is_there() -> None:
    cluster = Cluster()
    await cluster.publish(1)
    copying = asyncio.create_task(cluster.file_on(1, "there"))
    while "there" not in cluster.holders:  # noqa: ASYNC110
        await asyncio.sleep(0)
    cluster.versions.release("attacker", set())
    await asyncio.wait([copying])
    await settle(cluster)
    assert cluster.holders["there"].target._held == {}


async def test_a_lost_holder_costs_a_copy_and_a_lost_source_the_version() -> None:
    cluster = Cluster()
    await cluster.publish(1)
    await cluster.file_on(1, "there")
    cluster.holders["there"].lost = True
    await cluster.versions.check("attacker", 1, "there")  # a worker could not open it
    assert read(await cluster.file_on(1, "there")) == bytes([1]) * NBYTES
    assert cluster.started == ["there", "there"]
    await cluster.publish(2, "learners")
    cluster.holders["learners"].lost = True
    with pytest.raises(VersionGone, match="version 2 of the attacker"):
        await cluster.file_on(2, "there")
    await cluster.versions.check("attacker", 2, "learners")
    assert cluster.versions.list_held("attacker") == {1}, "its learner, if it lives, is to leave it again"


async def test_a_holder_that_answers_keeps_what_it_has() -> None:
    cluster = Cluster()
    await cluster.publish(1, "learners")
    await cluster.versions.check("attacker", 1, "learners")
    assert cluster.versions.list_held("attacker") == {1}


async def test_a_version_that_is_left_twice_at_once_is_taken_once() -> None:
    cluster = Cluster()
    buffer = SharedBuffer.create(NBYTES)
    manifest: Any = WeightManifest("attacker", 1, (), NBYTES, "")
    await asyncio.gather(*(cluster.versions.take(manifest, buffer.file("learners")) for _ in range(2)))
    assert cluster.holders["learners"].calls == ["hold"]
