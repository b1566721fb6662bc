"""The Ray actors of one test. It imports little: Ray's workers import the test modules, and so this, as they start."""

from typing import Any

import ray


class Actors:
    """The actors that a test made on the Ray that it shares with the others."""

    def __init__(self) -> None:
        self._made: list[Any] = []

    def keep(self, handle: Any) -> Any:
        """Has `handle`'s actor killed when the test ends; gives the handle back."""
        self._made.append(handle)
        return handle

    def kill(self) -> None:
        for handle in self._made:
            ray.kill(handle)
