"""An actor known by name: what parts hold of each other.

A handle inside the constructor arguments of an actor that may restart makes Ray warn that the restart could fail; a name cannot
be lost. Looked up once in each process.
"""

import functools
from typing import Any

import ray

NAMESPACE = "advgame"


@functools.cache
def _find(name: str) -> Any:
    return ray.get_actor(name, namespace=NAMESPACE)


class Named:
    """Stands for the handle of the actor of that name: `Named(name).method.remote(...)`. Picklable."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[type["Named"], tuple[str]]:
        return Named, (self._name,)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        return getattr(_find(self._name), method)
