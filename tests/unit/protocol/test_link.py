"""Channels and links over real sockets: every call ends, whoever dies; what nobody wants is cancelled; strangers get nothing."""

import asyncio
import pickle
from typing import Any

import pytest

from protocol import channel
from protocol.channel import Address, Channel, Lost, Server, connect
from protocol.link import Link
from tests.unit.direct import DirectHandle

pytestmark = pytest.mark.timeout(120)


class Gone(Exception):
    """What Ray raises of a dead actor."""


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("one argument, which is not enough to make it again")


class Worker(DirectHandle):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []
        self.cancelled = 0
        self.go = asyncio.Event()

    async def generate(self, ask: Any) -> Any:
        self.asked.append(ask)
        if isinstance(ask, Exception):
            raise ask
        return ask

    async def judge(self, ask: Any) -> Any:
        self.asked.append(ask)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ask


async def until(done: Any) -> None:
    async with asyncio.timeout(60):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_answers_find_their_callers_whatever_their_order_over_one_connection() -> None:
    worker = Worker()
    link = Link(worker)
    slow = [asyncio.create_task(link.call("judge", k)) for k in range(50)]
    quick = await asyncio.gather(*(link.call("generate", k) for k in range(100, 150)))
    worker.go.set()
    assert quick == list(range(100, 150))
    assert await asyncio.gather(*slow) == list(range(50))
    assert worker.found == 1


async def test_a_message_of_many_megabytes_arrives_whole() -> None:
    said = bytes(range(256)) * 40_000
    assert await Link(Worker()).call("generate", said) == said


async def test_frames_are_found_however_the_network_cuts_them() -> None:
    class Kept(channel._Frames):
        def __init__(self) -> None:
            super().__init__()
            self.kept: list[tuple[int, int, bytes]] = []

        def frame(self, kind: int, number: int, body: bytes) -> None:
            self.kept.append((kind, number, body))

    sent = [(1, 7, b"abc"), (2, 2**40, b""), (3, 0, bytes(300))]
    stream = b"".join(channel._HEAD.pack(len(body), kind, number) + body for kind, number, body in sent)
    for size in (1, 2, 13, 14, 100, len(stream)):
        frames = Kept()
        for at in range(0, len(stream), size):
            frames.data_received(stream[at : at + size])
        assert frames.kept == sent


async def test_the_workers_own_exception_is_raised_with_where_it_came_from() -> None:
    link = Link(Worker())
    with pytest.raises(KeyError, match="k") as raised:
        await link.call("generate", KeyError("k"))
    assert "in generate" not in str(raised.value)
    assert any("generate" in note for note in raised.value.__notes__)
    assert await link.call("generate", 1) == 1, "the connection serves on"


async def test_an_exception_that_cannot_be_pickled_leaves_its_name() -> None:
    class Local(Worker):
        async def generate(self, ask: Any) -> Any:
            raise Unpicklable(1, 2)

    with pytest.raises(RuntimeError, match="Unpicklable"):
        await Link(Local()).call("generate", 1)


async def test_only_the_named_methods_can_be_called() -> None:
    with pytest.raises(AttributeError, match="'die'"):
        await Link(Worker()).call("die", Gone())


async def test_a_call_that_nobody_waits_for_is_cancelled_in_the_worker() -> None:
    worker = Worker()
    link = Link(worker)
    call = asyncio.create_task(link.call("judge", 1))
    await until(lambda: worker.asked)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: worker.cancelled == 1)
    assert await link.call("generate", 2) == 2


async def test_a_caller_that_gives_up_while_connecting_does_not_take_the_others_along() -> None:
    worker = Worker()
    link = Link(worker)
    first, second = (asyncio.create_task(link.call("generate", k)) for k in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 2
    assert (worker.found, worker.asked) == (1, [2])


async def test_when_the_caller_is_gone_its_calls_are_cancelled() -> None:
    worker = Worker()
    made = await connect(await worker.listen("127.0.0.1"))
    call = asyncio.create_task(made.call("judge", 1))
    await until(lambda: worker.asked)
    made.fail("the process ends")
    with pytest.raises(Lost, match="the process ends"):
        await call
    await until(lambda: worker.cancelled == 1)


async def test_a_connection_that_ends_loses_its_calls_and_the_next_one_connects_again() -> None:
    worker = Worker()
    link = Link(worker)
    calls = [asyncio.create_task(link.call("judge", k)) for k in range(3)]
    await until(lambda: len(worker.asked) == 3)
    assert worker._server is not None
    worker._server.close()
    for call in calls:
        with pytest.raises(Lost, match="connection ended"):
            await call
    worker.come_back()
    assert await link.call("generate", 5) == 5
    assert worker.found == 2


async def test_a_death_that_only_ray_knows_of_loses_the_calls_too_and_what_ray_says_of_the_handle_is_raised() -> None:
    worker = Worker()
    link = Link(worker)
    call = asyncio.create_task(link.call("judge", 1))
    await until(lambda: worker.asked)
    worker.die(Gone())
    with pytest.raises(Lost, match="Gone"):
        await call
    with pytest.raises(Gone):
        await link.call("generate", 2)
    worker.come_back()
    assert await link.call("generate", 3) == 3


async def test_nobody_listening_is_lost_at_once() -> None:
    server = Server(object(), ())
    address = await server.open("127.0.0.1")
    server.close()
    with pytest.raises(Lost, match=rf"127\.0\.0\.1:{address.port} cannot be reached"):
        await connect(address)


def test_a_link_serves_one_event_loop_after_another_and_is_picklable_before() -> None:
    class Everywhere:
        """A handle that makes its worker on the loop that it is used on."""

        @property
        def channel(self) -> Any:
            self.worker = Worker()
            return self.worker.channel

        @property
        def hold(self) -> Any:
            return self.worker.hold

    link = Link(Everywhere())
    assert [asyncio.run(link.call("generate", k)) for k in (1, 2)] == [1, 2]
    assert isinstance(pickle.loads(pickle.dumps(Link("a name"))), Link)


# -- strangers


class Trap:
    """Unpickling it is noticed."""

    sprung = False

    def __reduce__(self) -> Any:
        return setattr, (Trap, "sprung", True)


async def stranger(address: Address, *frames: tuple[int, bytes]) -> bytes:
    """What the worker says to somebody who sends these frames, until it hangs up."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    for kind, body in frames:
        writer.write(channel._HEAD.pack(len(body), kind, 0) + body)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("token", [b"", b"x" * 32, b"x" * 33], ids=["none", "wrong", "too long"])
async def test_without_the_token_nothing_is_unpickled_and_the_connection_ends(token: bytes) -> None:
    address = await Worker().listen("127.0.0.1")
    call = (channel._CALL, pickle.dumps(Trap()))
    frames = [(channel._TOKEN, token), call] if token else [call]
    async with asyncio.timeout(60):
        assert await stranger(address, *frames) == b""
    assert not Trap.sprung
    assert "token" not in repr(address)


async def test_the_trap_would_be_noticed() -> None:
    worker = Worker()
    address = await worker.listen("127.0.0.1")
    made = await connect(address)
    made.send(channel._CALL, 0, pickle.dumps(Trap()))
    await until(lambda: Trap.sprung)
    assert Trap.sprung
    Trap.sprung = False


async def test_a_silent_stranger_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CONNECT_S", 0.05)
    address = await Worker().listen("127.0.0.1")
    async with asyncio.timeout(60):
        assert await stranger(address) == b""


class Talkative(Worker):
    async def generate(self, ask: Any) -> Any:
        return bytes(ask)


async def test_a_message_over_the_limit_is_refused_where_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(Talkative())
    await link.call("generate", 1)
    monkeypatch.setattr(channel, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="1000"):
        await link.call("judge", bytes(2000))
    with pytest.raises(ValueError, match="1000") as answered:
        await link.call("generate", 2000)
    assert answered.value.__notes__, "the worker said so"
    assert await link.call("generate", 2) == bytes(2)


class Foreign:
    """Can be pickled, and not read."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


async def test_an_answer_that_cannot_be_read_fails_its_call_and_no_other() -> None:
    class Odd(Worker):
        async def generate(self, ask: Any) -> Any:
            return Foreign()

    link = Link(Odd())
    other = asyncio.create_task(link.call("judge", 1))
    with pytest.raises(ValueError, match="no number"):
        await link.call("generate", 1)
    link._handle.go.set()
    assert await other == 1


def test_a_channel_belongs_to_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Channel(b"")
