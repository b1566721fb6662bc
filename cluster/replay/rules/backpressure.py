"""Backpressure: how many games may be open at once follows the engines' load (additive increase, multiplicative decrease).

    start ──► grows by `increase` a report, while open games reach it and every engine has room
      │ ▲
      ▼ │
    cut to a share of the games that were open, because an engine preempted a request. The next cut comes at the earliest when no
    more games are open than this one allows: until then, what is preempted belongs to games that were dealt before the cut

A pure state machine (no Ray, no vLLM; the clock is a number that the caller passes). A report holds the load of every engine that
answered: its KV cache, its queue and its preemptions. Invariants:

- **never stuck**: the limit is at least 1, and only open games count against it, so there is always one game that may be played.
- **only less**: it admits no game that staleness does not (`admission`).
- **no reports, no limit**: there is none before the first report, nor when `MISSED_REPORTS` in a row did not come: nobody reports
  any more, and the run must not go on at a low limit that nothing can raise.
- **only new preemptions count**: they count from an engine's first report on, and from where its count falls back to when it is
  restarted. An engine that does not answer has no room for more.

It starts at what the engines run at once if every open game asks its widest question, the Defender's answers to all of its
attacks, at the same moment: no request of so few games has to wait for a place. A higher limit must be reached by growth, because
the KV cache of long completions fills before the places do. Above `game.in_flight` there is nothing to limit.

It does not ask the engines (`cluster.supervise.engine_load`) and keeps nothing on disk: a restarted replay buffer starts anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cluster.plan.replay import ReplayPlan
from cluster.replay.rules.admission import Admission
from protocol.recipe import BackpressureConfig

MISSED_REPORTS = 30  # in a row: at the default of one a second, longer than a restarting engine delays a report


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """The load of one engine at one moment.

    Attributes:
        worker: the engine's name.
        kv_usage: share of its KV cache that requests hold.
        waiting: requests that wait for a place or for KV cache.
        preemptions: requests that it took the KV cache from, since it was built.
    """

    worker: str
    kv_usage: float
    waiting: int
    preemptions: int


@dataclass(frozen=True, slots=True)
class BackpressureStats:
    """What it came to.

    Attributes:
        limit: games that may be open at once; None: there is no limit now.
        cuts: of the limit, since the replay buffer started.
        preemptions: seen since then.
        kv_usage: share of the KV cache in use, of the fullest engine in the last report.
        waiting: requests, in the engine where most waited in the last report.
    """

    limit: int | None = None
    cuts: int = 0
    preemptions: int = 0
    kv_usage: float = 0.0
    waiting: int = 0


class Backpressure:
    """See the module's docstring.

    Args:
        config: the recipe's `generation.backpressure`.
        start: the first limit, in games.
    """

    def __init__(self, config: BackpressureConfig, start: int) -> None:
        self._config = config
        self._limit = max(1, start)
        self._cause = "as many as their places take without a queue"
        self._peak = 0  # most games open at once since the last report
        self._reported_s: float | None = None
        self._counts: dict[str, int] = {}  # preemptions of each engine, in its last report
        self._fullest, self._queue = 0.0, 0
        self.cuts = self.preemptions = 0

    @classmethod
    def from_plan(cls, plan: ReplayPlan) -> Self | None:
        """None where only staleness bounds the open games."""
        return None if plan.backpressure is None else cls(plan.backpressure, plan.first_limit)

    def limit(self, now_s: float) -> int | None:
        """Games that may be open at once; None while nobody reports."""
        if self._reported_s is None or now_s - self._reported_s > MISSED_REPORTS * self._config.every_s:
            return None
        return self._limit

    def narrow(self, admission: Admission, open_games: int, now_s: float) -> Admission:
        """What remains of an admission under the limit. Ask with every change of `open_games`: the most of them is noted."""
        self._peak = max(self._peak, open_games)
        limit = self.limit(now_s)
        if limit is None or limit - open_games >= admission.games:
            return admission
        games = max(0, limit - open_games)
        return Admission(
            games,
            f"admitting {games}: {open_games} games are open of {limit} that the engines bear: {self._cause}",
            "engines",
        )

    def report(self, engines: Sequence[EngineLoad], open_games: int, now_s: float) -> None:
        """Takes the load of those engines that answered. An empty report counts as missed."""
        if not engines:
            return
        preempted = [e.worker for e in engines if e.preemptions > self._counts.get(e.worker, e.preemptions)]
        self.preemptions += sum(max(0, e.preemptions - self._counts.get(e.worker, e.preemptions)) for e in engines)
        self._counts.update({e.worker: e.preemptions for e in engines})
        self._fullest, self._queue = max(e.kv_usage for e in engines), max(e.waiting for e in engines)
        peak, self._peak, self._reported_s = max(self._peak, open_games), open_games, now_s
        if preempted:
            if peak <= self._limit:
                self._cut(preempted[0], peak)
        elif (full := self._full(engines)) is not None:
            self._cause = full
        elif peak >= self._limit:
            self._limit += self._config.increase
            self._cause = "they have room, so the limit grows"

    def stats(self, now_s: float) -> BackpressureStats:
        """As it stands at `now_s`."""
        return BackpressureStats(self.limit(now_s), self.cuts, self.preemptions, self._fullest, self._queue)

    def _full(self, engines: Sequence[EngineLoad]) -> str | None:
        """Which engine has no room for more games, or does not say, and why; None if all have."""
        if silent := self._counts.keys() - {e.worker for e in engines}:
            return f"{min(silent)} does not say how full it is"
        for e in engines:
            if e.kv_usage > self._config.kv_high:
                return f"{e.worker} has {e.kv_usage:.0%} of its KV cache in use, above {self._config.kv_high:.0%}"
            if e.waiting > self._config.queue_high:
                return f"{e.worker} has {e.waiting} requests waiting, above {self._config.queue_high}"
        return None

    def _cut(self, worker: str, peak: int) -> None:
        # A share of the games that were open, not of the limit: where fewer were open, that share may still be above them.
        self._limit = max(1, int(self._config.cut * peak))
        self.cuts += 1
        self._cause = f"{worker} preempted requests with {peak} games open"
