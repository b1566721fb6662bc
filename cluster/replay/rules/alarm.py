"""The judge alarm: a judge that fails too often pauses the run, and is asked again every `pause_s` until it answers.

    quiet ──failures above the rate──► up ──pause_s──► probing(a few games) ──the judge answers──► quiet, with an empty window
                                       ▲                     │
                                       └─── it fails again ──┘

A pure state machine (no Ray; the clock is a number that the caller passes). Invariants:

- **counts only**: it counts verdicts that were asked for and those that failed, and changes none.
- **no early alarm**: fewer than half a window of verdicts never raise it.
- **never stuck**: while it is up, either games of a probe are open, or a time is set at which the next may be dealt. Games in
  flight come back as ever. A probe whose games are lost is over.
- **earlier games do not count**: games that were open when the alarm rose say nothing about the judge after it.

It does not deal (`dealer`), and does not end a run that stays paused (`supervise.watchdog`). A restarted replay buffer starts quiet
with an empty window, and counts the earlier alarms from its journal: a judge that still fails raises it again within half a
window of verdicts. `note_finished` and `note_over` return what they changed, so that the caller can write it down.
"""

import math
from collections import deque
from collections.abc import Iterable

from cluster.replay.rules.events import Event
from protocol.recipe import AlarmConfig


class Alarm:
    """See the module's docstring.

    Args:
        config: the recipe's `judge.alarm`. A failure rate of 1 never raises it.
    """

    def __init__(self, config: AlarmConfig) -> None:
        self._config = config
        self._games: deque[tuple[int, int]] = deque()  # (verdicts, failed) of the latest games
        self._verdicts = self._failed = 0  # sums of `_games`
        self._open: set[int] = set()
        self._earlier: set[int] = set()  # games that have been open since before the alarm rose
        self._probe: set[int] = set()
        self._probed = (0, 0)  # verdicts and failures of the probe so far
        self._probe_at = 0.0
        self._since: float | None = None
        self._cause = ""
        self.raised = 0  # times
        self.paused_s = 0.0  # of alarms that are over

    @property
    def can_rise(self) -> bool:
        """Whether the judge is meant to answer, and something is done about it if it does not."""
        return self._config.failure_rate < 1.0

    @property
    def is_up(self) -> bool:
        return self._since is not None

    @property
    def failure_rate(self) -> float | None:
        """Share of the latest verdicts that failed; None while there are none."""
        return self._failed / self._verdicts if self._verdicts else None

    def up_s(self, now_s: float) -> float:
        """Seconds since the alarm rose; 0 while it is quiet."""
        return 0.0 if self._since is None else now_s - self._since

    def limit(self, now_s: float) -> int | None:
        """Games that may be dealt now; None: it does not limit them."""
        if not self.is_up:
            return None
        return 0 if self._probe or now_s < self._probe_at else self._config.probe_games

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until the next probe may be dealt; None while that does not depend on time."""
        return self._probe_at - now_s if self.is_up and not self._probe and self._probe_at > now_s else None

    def why(self, now_s: float) -> str:
        """The pause in a sentence; empty while it is quiet."""
        if not self.is_up:
            return ""
        games, left = self._config.probe_games, self._probe_at - now_s
        again = f"{len(self._probe)} games ask it again" if self._probe else f"asking again with {games} games"
        when = f" in {math.ceil(left)} s" if not self._probe and left > 0 else " now"
        return f"paused: judge failed {self._cause}, alarm at {100 * self._config.failure_rate:g} %; {again}{when}"

    def note_dealt(self, games: Iterable[int]) -> None:
        """Games within `limit` were dealt."""
        games = set(games)
        self._open |= games
        if self.is_up:
            self._probe, self._probed = games, (0, 0)

    def note_finished(self, game_id: int, verdicts: int, failed: int, now_s: float) -> Event | None:
        """A game came back with so many verdicts, of which so many failed. Gives the journal's event if that changed anything."""
        earlier = game_id in self._earlier
        if self.is_up:
            if game_id in self._probe:
                self._probed = (self._probed[0] + verdicts, self._probed[1] + failed)
        elif verdicts and not earlier:
            self._count(verdicts, failed)
        over = self.note_over([game_id], now_s)
        if not self.is_up and 2 * self._verdicts >= self._config.window and self._failed > self._limit(self._verdicts):
            return self._rise(now_s)
        return over

    def note_over(self, games: Iterable[int], now_s: float) -> Event | None:
        """Games are over, or lost and dealt again later: nothing more comes of them. Gives an event as `note_finished` does."""
        games = set(games)
        self._open -= games
        self._earlier -= games
        probing, self._probe = bool(self._probe), self._probe - games
        if probing and not self._probe:
            verdicts, failed = self._probed
            if verdicts and failed <= self._limit(verdicts):
                return self._fall(now_s)
            self._probe_at = now_s + self._config.pause_s
        return None

    def _limit(self, verdicts: int) -> float:
        return self._config.failure_rate * verdicts

    def _count(self, verdicts: int, failed: int) -> None:
        self._games.append((verdicts, failed))
        self._verdicts, self._failed = self._verdicts + verdicts, self._failed + failed
        while self._verdicts - self._games[0][0] >= self._config.window:
            old = self._games.popleft()
            self._verdicts, self._failed = self._verdicts - old[0], self._failed - old[1]

    def _rise(self, now_s: float) -> Event:
        self._since, self._probe_at = now_s, now_s + self._config.pause_s
        self._cause = f"{self._failed} of the last {self._verdicts} verdicts"
        self.raised += 1
        self._earlier = set(self._open)
        return {"e": "alarm"}

    def _fall(self, now_s: float) -> Event:
        paused_s = self.up_s(now_s)
        self.paused_s += paused_s
        self._since = None
        self._games.clear()
        self._verdicts = self._failed = 0
        return {"e": "calm", "s": paused_s}
