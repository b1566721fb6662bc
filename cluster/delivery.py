"""Delivery: which worker gets which version when, and when it is replaced.

    starting ──► healthy(version) ──► delivering(version, deadline) ──► healthy
       ▲  │                                   │
       └──┴───────────── evicted ◄────────────┘            (failed or late; counted by reason)

A pure state machine for the workers of both players: no Ray, no clock of its own. Invariants:

- **newest wins**: a push always carries the newest version; those that were never the newest while a worker was free are skipped
  for it, and counted as superseded for the player if no worker ever got them.
- **one at a time**: a worker has at most one push, and none while it starts.
- **no unknown version**: a worker that failed or was late is evicted, and is healthy again only when its start names its version.
- **late answers count for nothing**: every push and start has a ticket; an answer under an old ticket is ignored.

It does not own the weights or the killing (`publisher`).
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from protocol.roles import PLAYERS, Player

State = Literal["starting", "healthy", "delivering"]


@dataclass(frozen=True, slots=True)
class Push:
    """Send `version` to `worker` now; give up on it at `deadline_s`."""

    worker: str
    player: Player
    version: int
    ticket: int
    deadline_s: float


@dataclass(slots=True)
class WorkerView:
    """What is known of a worker. `version` is what it last said it serves; -1 before that, and while it starts."""

    player: Player
    state: State = "starting"
    version: int = -1
    ticket: int = 0
    deadline_s: float = 0.0
    evictions: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _PlayerView:
    newest: int = 0  # the starting weights
    published: int = 0
    superseded: int = 0
    pushed: int = 0  # newest version that went to any worker, by a push or at its start


class Delivery:
    """See the module's docstring.

    Args:
        deadline_s: for one push to one worker, all phases.
        start_deadline_s: for the start of a worker, its engine included.
    """

    def __init__(self, deadline_s: float, start_deadline_s: float) -> None:
        self._deadline_s, self._start_deadline_s = deadline_s, start_deadline_s
        self._workers: dict[str, WorkerView] = {}
        self._players: dict[Player, _PlayerView] = {p: _PlayerView() for p in PLAYERS}

    def register(self, player: Player, worker: str, now_s: float) -> int:
        """A worker that is starting. Gives the ticket of its start."""
        self._workers[worker] = WorkerView(player)
        return self._begin_start(self._workers[worker], now_s)

    def publish(self, player: Player, version: int) -> bool:
        """A new version exists. False if it is not newer than the newest: nothing changes."""
        view = self._players[player]
        if version <= view.newest:
            return False
        view.superseded += view.newest > view.pushed
        view.newest = version
        view.published += 1
        return True

    def next_pushes(self, now_s: float) -> list[Push]:
        """Pushes to begin now: the newest version for every healthy worker that is behind."""
        pushes = []
        for name, worker in self._workers.items():
            view = self._players[worker.player]
            if worker.state == "healthy" and worker.version < view.newest:
                worker.state, worker.deadline_s = "delivering", now_s + self._deadline_s
                worker.ticket += 1
                view.pushed = view.newest
                pushes.append(Push(name, worker.player, view.newest, worker.ticket, worker.deadline_s))
        return pushes

    def loaded(self, worker: str, ticket: int, version: int) -> bool:
        """The worker answered a push: it serves `version` now. False if the answer came too late to count."""
        view = self._current(worker, ticket, "delivering")
        if view is None:
            return False
        view.state, view.version = "healthy", version
        return True

    def started(self, worker: str, ticket: int, version: int) -> bool:
        """The worker started and serves `version`. False if the answer came too late to count."""
        view = self._current(worker, ticket, "starting")
        if view is None:
            return False
        view.state, view.version = "healthy", version
        self._players[view.player].pushed = max(self._players[view.player].pushed, version)
        return True

    def evict(self, worker: str, ticket: int, reason: str, now_s: float) -> int | None:
        """The push or start failed or is late: the worker starts anew. Gives the ticket of that start.

        None if it is about an old ticket: the worker is somewhere else by now.
        """
        view = self._workers[worker]
        if view.ticket != ticket or view.state == "healthy":
            return None
        view.evictions[reason] += 1
        return self._begin_start(view, now_s)

    def delivered(self, player: Player, version: int) -> bool:
        """Whether every worker of the player (at least one) serves `version` or a newer one."""
        mine = [w for w in self._workers.values() if w.player == player]
        return bool(mine) and all(w.state != "starting" and w.version >= version for w in mine)

    def newest(self, player: Player) -> int:
        """The newest version; 0 before the first push."""
        return self._players[player].newest

    def counts(self, player: Player) -> dict[str, int]:
        """Versions published, and those of them that no worker was ever sent."""
        view = self._players[player]
        return {"published": view.published, "superseded": view.superseded}

    def workers(self, player: Player) -> dict[str, WorkerView]:
        """The player's workers by name."""
        return {name: w for name, w in self._workers.items() if w.player == player}

    def _begin_start(self, view: WorkerView, now_s: float) -> int:
        view.state, view.version, view.deadline_s = "starting", -1, now_s + self._start_deadline_s
        view.ticket += 1
        return view.ticket

    def _current(self, worker: str, ticket: int, state: State) -> WorkerView | None:
        view = self._workers[worker]
        return view if view.ticket == ticket and view.state == state else None
