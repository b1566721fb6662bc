"""Meeting a learner for `nccl` or `ipc` beside the engine's work: the rendezvous waits for every member, and may wait for ever.

It runs in a thread, so that the engine serves meanwhile. Whoever asked looks at its state until a deadline, and abandons it then: a
thread that comes back after that shuts down what it made, and nothing else has changed.

It does not know vLLM: what is made, and how, is given.
"""

import threading
from collections.abc import Callable
from typing import Any

JOINING, JOINED, FAILED = "joining", "joined", "failed"


class Joining:
    """One attempt. `make` gives a joined engine, which has `shutdown`."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._engine: Any = None
        self._state = JOINING
        self._abandoned = False
        threading.Thread(target=self._work, name="native-join", daemon=True).start()

    @property
    def state(self) -> str:
        """`JOINING`, `JOINED`, or `FAILED` and why."""
        with self._lock:
            return self._state

    def take(self) -> Any:
        """The joined engine, which is the caller's from now on; None where there is none."""
        with self._lock:
            engine, self._engine = self._engine, None
            return engine

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._abandoned = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()

    def _work(self) -> None:
        try:
            engine = self._make()
        except Exception as error:  # noqa: BLE001 - told to whoever looks
            with self._lock:
                self._state = f"{FAILED}: {type(error).__name__}: {error}"[:300]
            return
        with self._lock:
            late = self._abandoned
            if not late:
                self._engine, self._state = engine, JOINED
        if late:
            engine.shutdown()
