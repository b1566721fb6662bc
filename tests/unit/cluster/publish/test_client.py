"""What learners and workers make of a publisher's answers: whose fault is it, and is it worth another try."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from cluster.publish.client import PublisherSink, VersionClient
from protocol.errors import NotHandedOver, VersionGone
from protocol.shared import SharedBuffer, SharedFile
from protocol.types import WeightManifest
from tests.unit.cluster.publish.nodes import Local


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))


def raised(error: Exception) -> RayTaskError:
    """As Ray raises what an actor's method raised."""
    return RayTaskError("method", "a traceback", error).as_instanceof_cause()  # type: ignore[no-any-return]


class Sink(PublisherSink):
    def __init__(self, error: Exception) -> None:
        super().__init__(None)
        self.error = error

    def ask(self, method: str, *args: Any, wait_s: float = 0.0) -> Any:
        raise self.error


MANIFEST = WeightManifest("attacker", 1, (), 8, "")


@pytest.mark.parametrize("error", [TimeoutError(), FileNotFoundError("gone"), ray.exceptions.ActorDiedError()])
def test_what_the_publisher_could_not_do_is_no_fault_of_the_learners(error: Exception) -> None:
    with pytest.raises(NotHandedOver):
        Sink(raised(error)).publish(MANIFEST, SharedBuffer.create(8))


def test_a_fault_of_ours_stays_one() -> None:
    with pytest.raises(RayTaskError):
        Sink(raised(TypeError("a fault"))).publish(MANIFEST, SharedBuffer.create(8))


class Publisher:
    """Its version 7 cannot be had the first `fails` times; then there is `then`."""

    def __init__(self, fails: int, then: int) -> None:
        self.fails, self.then, self.stays = fails, then, True
        self.buffer = SharedBuffer.create(8)

    async def chosen(self, player: str, worker: str) -> int:
        return 7 if self.fails else self.then

    async def newest(self, player: str, worker: str, node: str) -> Any:
        if self.fails:
            self.fails -= 1
            raise raised(VersionGone("attacker", 7))
        return WeightManifest("attacker", self.then, (), 8, ""), self.buffer.file("here"), self.stays

    async def file_on(self, player: str, version: int, node: str) -> Any:
        raise raised(VersionGone("attacker", version))

    async def confirm(self, *_: Any) -> bool:
        raise ray.exceptions.ActorUnavailableError("restarting", b"\0" * 16)


async def test_a_version_that_a_newer_one_took_the_place_of_is_not_the_end() -> None:
    found = await VersionClient(Local(Publisher(fails=1, then=8))).newest("attacker")
    assert found is not None and found[0].version == 8


@pytest.mark.parametrize("stays", [True, False])
async def test_only_bytes_that_stay_are_read_where_they_lie(stays: bool) -> None:
    publisher = Publisher(fails=0, then=8)
    publisher.stays = stays
    found = await VersionClient(Local(publisher)).newest("attacker")
    assert found is not None and isinstance(found[1], SharedFile if stays else memoryview)


async def test_a_version_that_cannot_be_had_is_said_in_a_way_that_travels() -> None:
    client = VersionClient(Local(Publisher(fails=2, then=7)))
    with pytest.raises(VersionGone) as gone:
        await client.newest("attacker")
    assert type(gone.value) is VersionGone and "version 7" in str(gone.value)
    with pytest.raises(VersionGone) as gone:
        await client.fetch(MANIFEST, Publisher(0, 1).buffer.file("elsewhere"))
    assert type(gone.value) is VersionGone


async def test_a_publisher_that_is_away_holds_up_no_paused_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.publish.client.CONFIRM_S", 0.1)
    assert await VersionClient(Local(Publisher(0, 1))).confirm("attacker", 1, "l", "digest")
