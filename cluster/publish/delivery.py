"""Delivery: which worker gets which version when, and when it is replaced.

    starting ──► healthy(version) ──► delivering(version, deadline) ──► healthy
       ▲  │                                   │
       └──┴───────────── evicted ◄────────────┘            (failed or late; counted by reason)
       └──────────────── retired ◄─ healthy                (supervision found that it does not serve)

A pure state machine for the workers of both players: no Ray, no clock of its own. Invariants:

- **newest wins**: a push always carries the newest version that is for its worker; older ones that it was not free for are skipped
  for it, and counted as superseded for the player if no worker ever got them.
- **periods**: a worker of period n takes versions that n divides, so that a free one is at most n - 1 versions behind. Where such a
  version never came (a resumed run begins above it, a queue skipped it), it takes the newest rather than get older than that.
- **the last version goes to all**: from then on every period is 1.
- **one at a time**: a worker has at most one push, and none while it starts.
- **no unknown version**: a worker that failed or was late is evicted, and is healthy again only when its start names its version.
- **late answers count for nothing**: every push and start has a ticket; an answer under an old ticket is ignored.

It does not own the weights or the killing (`actor`), but says which versions are still needed.
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
    period: int = 1
    state: State = "starting"
    version: int = -1
    ticket: int = 0
    deadline_s: float = 0.0
    loading: int = 0  # the version on its way to it, by a push or at its start; 0: none
    evictions: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _PlayerView:
    newest: int = 0  # the starting weights
    published: int = 0
    superseded: int = 0
    first: int = 0  # above 1 in a resumed run
    pushed: int = 0  # newest version that went to any worker, by a push or at its start
    kept: set[int] = field(default_factory=set)  # published, and some worker's


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

    def register(self, player: Player, worker: str, now_s: float, period: int = 1) -> int:
        """A worker that is starting, and takes every `period`-th version. Gives the ticket of its start."""
        self._workers[worker] = WorkerView(player, period)
        return self._begin_start(self._workers[worker], now_s)

    def publish(self, player: Player, version: int, last: bool = False) -> bool:
        """A new version exists; no other follows if it is the `last`. False if it is not newer than the newest: nothing changes."""
        view = self._players[player]
        if version <= view.newest:
            return False
        view.superseded += view.newest > view.pushed
        view.newest = version
        view.published += 1
        view.first = view.first or version
        view.kept.add(version)
        if last:
            for worker in self.workers(player).values():
                worker.period = 1
        view.kept &= self.needed_versions(player)
        return True

    def choose(self, worker: str) -> int:
        """The version that a starting worker is to serve; 0 is the starting weights."""
        return self._choose(self._workers[worker], held=-1)

    def begin_load(self, worker: str, version: int) -> bool:
        """A worker that starts is about to read this version, which is needed until it has. False if it does not start."""
        view = self._workers[worker]
        if view.state != "starting":
            return False
        view.loading = version
        return True

    def needed_versions(self, player: Player) -> set[int]:
        """Published versions whose bytes are for some worker, or on their way to one; and the newest."""
        view = self._players[player]
        mine = self.workers(player).values()
        chosen = {view.newest} | {self._divisible(view, w.period) for w in mine}
        return {v for v in chosen if v in view.kept} | {w.loading for w in mine if w.loading > 0}

    def next_pushes(self, now_s: float) -> list[Push]:
        """Pushes to begin now: to every healthy worker that is behind, the version that is for it."""
        pushes = []
        for name, worker in self._workers.items():
            version = self._choose(worker, worker.version)
            if worker.state == "healthy" and version > worker.version:
                view = self._players[worker.player]
                worker.state, worker.loading, worker.deadline_s = "delivering", version, now_s + self._deadline_s
                worker.ticket += 1
                view.pushed = max(view.pushed, version)
                pushes.append(Push(name, worker.player, version, worker.ticket, worker.deadline_s))
        return pushes

    def record_load(self, worker: str, ticket: int, version: int) -> bool:
        """The worker answered a push: it serves `version` now. False if the answer came too late to count."""
        view = self._current(worker, ticket, "delivering")
        if view is None:
            return False
        view.state, view.version, view.loading = "healthy", version, 0
        return True

    def postpone(self, worker: str, ticket: int) -> bool:
        """The push could not begin, which is no fault of the worker's: it serves on. False if it came too late to count."""
        view = self._current(worker, ticket, "delivering")
        if view is None:
            return False
        view.state, view.loading = "healthy", 0
        return True

    def record_start(self, worker: str, ticket: int, version: int) -> bool:
        """The worker started and serves `version`. False if the answer came too late to count."""
        view = self._current(worker, ticket, "starting")
        if view is None:
            return False
        view.state, view.version, view.loading = "healthy", version, 0
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

    def retire(self, worker: str, reason: str, now_s: float) -> int | None:
        """Somebody else found that the worker does not serve: it starts anew. Gives the ticket of that start.

        None unless it is healthy: a push or a start that is under way has a deadline of its own.
        """
        view = self._workers[worker]
        if view.state != "healthy":
            return None
        view.evictions[reason] += 1
        return self._begin_start(view, now_s)

    def player(self, worker: str) -> Player:
        """Whose worker it is."""
        return self._workers[worker].player

    def is_delivered(self, player: Player, version: int) -> bool:
        """Whether `version` or a newer one is published and every worker of the player (at least one) serves what is for it."""
        mine = self.workers(player).values()
        return (
            bool(mine)
            and self._players[player].newest >= version
            and all(w.state != "starting" and w.version >= min(version, self._choose(w, w.version)) for w in mine)
        )

    def newest(self, player: Player) -> int:
        """The newest version; 0 before the first push."""
        return self._players[player].newest

    def first(self, player: Player) -> int:
        """The first version that came; 0 before it."""
        return self._players[player].first

    def published(self, player: Player) -> int:
        """Versions published."""
        return self._players[player].published

    def superseded(self, player: Player) -> int:
        """Published versions that no worker was ever sent."""
        return self._players[player].superseded

    def workers(self, player: Player) -> dict[str, WorkerView]:
        """The player's workers by name."""
        return {name: w for name, w in self._workers.items() if w.player == player}

    def _choose(self, worker: WorkerView, held: int) -> int:
        """The version that is for a worker which serves `held`, never an older one."""
        view = self._players[worker.player]
        due = self._divisible(view, worker.period)
        if due in view.kept:
            return max(held, due)
        # A resumed run goes on with the version it had, not with the folder that it once began from.
        older_than_all = view.first > 1 and held < view.first
        if older_than_all or held <= view.newest - worker.period:
            return view.newest
        return max(held, 0)

    @staticmethod
    def _divisible(view: _PlayerView, period: int) -> int:
        return view.newest // period * period

    def _begin_start(self, view: WorkerView, now_s: float) -> int:
        view.state, view.version, view.loading = "starting", -1, 0
        view.deadline_s = now_s + self._start_deadline_s
        view.ticket += 1
        return view.ticket

    def _current(self, worker: str, ticket: int, state: State) -> WorkerView | None:
        view = self._workers[worker]
        return view if view.ticket == ticket and view.state == state else None
