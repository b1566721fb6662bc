"""Nodes that are only names: an actor's handle over an object of this process, which can be lost."""

import asyncio
from typing import Any

from ray.exceptions import ActorDiedError


class Local:
    """As the handle of an asynchronous actor. `calls` are the names of the methods that were called; `lost`: it is gone."""

    def __init__(self, target: Any) -> None:
        self.target, self.calls, self.lost = target, list[str](), False

    def __getattr__(self, method: str) -> Any:
        return _Method(self, method)


class _Method:
    def __init__(self, handle: Local, name: str) -> None:
        self._handle, self._name = handle, name

    def options(self, **_: Any) -> "_Method":
        return self

    def remote(self, *args: Any) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self._call(*args))

    async def _call(self, *args: Any) -> Any:
        self._handle.calls.append(self._name)
        await asyncio.sleep(0)
        if self._handle.lost:
            raise ActorDiedError()
        return await getattr(self._handle.target, self._name)(*args)
