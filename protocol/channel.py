"""Calls to a worker over one connection of its own: what a call between Ray actors does, at a fraction of its cost.

A game asks its engines and judges a handful of times, and each call through Ray costs the caller half a millisecond: an object
reference, an owner's entry, a task event. So Ray starts, watches and restarts the workers, and the asks go straight. Invariants:

- every call ends: with the answer, the worker's own exception, the caller's cancellation, or `Lost` when the connection ends;
- a call that nobody waits for any more is cancelled in the worker, also when the caller's process is gone;
- nothing is unpickled before the other side has shown the token, which only Ray hands out.

It has no deadline of its own but for connecting, does not connect again and does not know who died: that is `link`.
"""

import asyncio
import hmac
import itertools
import pickle
import secrets
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from protocol.errors import trail

CONNECT_S = 10.0  # to connect, and for a peer to show the token
MAX_BYTES = 1 << 30  # of one frame: far above any batch of completions, far below what would exhaust a node
_HEAD = struct.Struct("<IBQ")  # bytes that follow, kind, number of the call
_TOKEN, _CALL, _CANCEL, _ANSWER, _ERROR = range(5)
_TOKEN_BYTES = 32


class Lost(Exception):
    """The connection, or what was behind it, is gone: the call may have been made or not. Ask again, or ask another."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker listens, and the proof that one was told so."""

    host: str
    port: int
    token: bytes = field(repr=False)


class _Frames(asyncio.Protocol):
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._rest = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        at = 0
        while len(self._rest) - at >= _HEAD.size:
            length, kind, number = _HEAD.unpack_from(self._rest, at)
            if length > self.limit():
                self._transport.abort()
                return
            end = at + _HEAD.size + length
            if len(self._rest) < end:
                break
            body = bytes(memoryview(self._rest)[at + _HEAD.size : end])
            at = end
            self.frame(kind, number, body)
        del self._rest[:at]

    def send(self, kind: int, number: int, body: bytes = b"") -> None:
        self._transport.write(_HEAD.pack(len(body), kind, number) + body)

    def limit(self) -> int:
        return MAX_BYTES

    def frame(self, kind: int, number: int, body: bytes) -> None:
        raise NotImplementedError


class _Served(_Frames):
    """The worker's end of one connection."""

    def __init__(self, server: "Server") -> None:
        super().__init__()
        self._server = server
        self._known = False
        self._running: dict[int, asyncio.Task[None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.connections.add(self)
        self._limit = asyncio.get_running_loop().call_later(CONNECT_S, self.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.cancel()
        self._server.connections.discard(self)
        for task in self._running.values():
            task.cancel()

    def close(self) -> None:
        self._transport.close()

    def limit(self) -> int:
        return MAX_BYTES if self._known else _TOKEN_BYTES

    def frame(self, kind: int, number: int, body: bytes) -> None:
        if not self._known:
            if kind != _TOKEN or not hmac.compare_digest(body, self._server.token):
                self._transport.abort()
                return
            self._limit.cancel()
            self._known = True
        elif kind == _CALL:
            task = asyncio.get_running_loop().create_task(self._answer(number, body))
            self._running[number] = task
        elif kind == _CANCEL and (running := self._running.get(number)) is not None:
            running.cancel()

    async def _answer(self, number: int, body: bytes) -> None:
        try:
            method, argument = pickle.loads(body)
            kind, said = _ANSWER, _packed(await self._server.call(method, argument))
        except asyncio.CancelledError:
            kind, said = _ERROR, pickle.dumps(Lost("the worker gave the call up"))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            kind, said = _ERROR, _portable(error)
        del self._running[number]
        if not self._transport.is_closing():
            self.send(kind, number, said)


class Server:
    """Answers calls of some of an object's methods, each with one argument, all side by side on the running event loop.

    Args:
        target: whose async methods.
        methods: their names; no other can be called.
    """

    def __init__(self, target: object, methods: Collection[str]) -> None:
        self._target, self._methods = target, frozenset(methods)
        self._opening = asyncio.Lock()
        self._listening: asyncio.Server | None = None
        self.token = secrets.token_bytes(_TOKEN_BYTES)
        self.connections: set[_Served] = set()

    async def open(self, host: str) -> Address:
        """Listens at a free port of that address of this machine; asked again, says where it does."""
        async with self._opening:
            if self._listening is None:
                loop = asyncio.get_running_loop()
                self._listening = await loop.create_server(lambda: _Served(self), host, 0)
        return Address(host, self._listening.sockets[0].getsockname()[1], self.token)

    def close(self) -> None:
        """Ends every connection; callers get `Lost`."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for connection in list(self.connections):
            connection.close()

    async def call(self, method: str, argument: Any) -> Any:
        if method not in self._methods:
            raise AttributeError(f"{type(self._target).__name__} does not answer {method!r} here")
        return await getattr(self._target, method)(argument)


class Channel(_Frames):
    """The caller's end. Made by `connect`; belongs to the event loop that it was made on."""

    def __init__(self, token: bytes) -> None:
        super().__init__()
        self._token = token
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.loop = asyncio.get_running_loop()
        self.lost: str | None = None  # why, once it is

    async def call(self, method: str, argument: Any) -> Any:
        """What the worker's method gives.

        Raises:
            Lost: the connection ended first.
            Exception: what the method raised, with the lines that it passed over there as a note.
        """
        if self.lost is not None:
            raise Lost(self.lost)
        number = next(self._numbers)
        self.send(_CALL, number, _packed((method, argument)))
        answer = self._waiting[number] = self.loop.create_future()
        try:
            return await answer
        finally:
            if self._waiting.pop(number, None) is not None and self.lost is None:  # the caller was cancelled
                self.send(_CANCEL, number)

    def fail(self, why: str) -> None:
        """Ends the connection; every call that waits gets `Lost`."""
        if self.lost is None:
            self.lost = why
            self._transport.abort()
            waiting, self._waiting = self._waiting, {}
            for answer in waiting.values():
                if not answer.done():
                    answer.set_exception(Lost(why))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(_TOKEN, 0, self._token)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail("the connection ended" if exc is None else f"the connection ended: {type(exc).__name__}")

    def frame(self, kind: int, number: int, body: bytes) -> None:
        answer = self._waiting.pop(number, None)
        if answer is None or answer.done():  # cancelled meanwhile
            return
        try:
            said = pickle.loads(body)
        except Exception as error:  # noqa: BLE001 - of this call alone; the others' connection lives on
            kind, said = _ERROR, error
        if kind == _ANSWER:
            answer.set_result(said)
        else:
            answer.set_exception(said)


async def connect(address: Address) -> Channel:
    """A channel to a worker.

    Raises:
        Lost: nobody listens there, or not within `CONNECT_S`.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, channel = await loop.create_connection(lambda: Channel(address.token), address.host, address.port)
    except OSError as error:  # TimeoutError is one
        raise Lost(f"{address.host}:{address.port} cannot be reached: {type(error).__name__}") from None
    return channel


def _packed(message: Any) -> bytes:
    body = pickle.dumps(message, 5)
    if len(body) > MAX_BYTES:
        raise ValueError(f"a message of {len(body)} bytes; a channel carries {MAX_BYTES}")
    return body


def _portable(error: Exception) -> bytes:
    """The error as it travels; one that cannot be pickled leaves its name."""
    error.add_note(f"in the worker: {', '.join(trail(error))}")
    try:
        said = pickle.dumps(error)
        pickle.loads(said)
    except Exception:  # noqa: BLE001 - whatever its class does in pickling
        said = pickle.dumps(RuntimeError(f"{type(error).__name__}, which cannot be pickled"))
    return said
