"""When nothing moves, says which edge is blocked (DESIGN.md, "Failure": "nobody, but nothing moves").

Pure: one snapshot of counters in, a sentence or None out. It owns no timer and kills nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocol.roles import PLAYERS, Player


@dataclass(frozen=True)
class Snapshot:
    """What the driver saw at one moment. Counts only ever grow, save for `healthy`."""

    now_s: float
    steps: Mapping[Player, int]
    games_finished: int
    games_started: int
    tokens: int
    verdicts: int
    held: Mapping[Player, int]
    batch: Mapping[Player, int]
    healthy_judges: tuple[int, int]  # (healthy, all)
    healthy_generators: Mapping[Player, tuple[int, int]]
    admission: str = ""


@dataclass
class Watchdog:
    """Feeds on snapshots; `check` gives the reason once nothing has moved for `stall_s` seconds."""

    stall_s: float
    _last: tuple[int, ...] = ()
    _since_s: float = 0.0
    _learned_since_s: float = field(default=0.0)

    def check(self, s: Snapshot) -> str | None:
        """None while any counter moves; else why nothing does."""
        moving = (*(s.steps[p] for p in PLAYERS), s.games_finished, s.games_started, s.tokens, s.verdicts)
        if moving != self._last or not self._since_s:
            self._last, self._since_s = moving, s.now_s
            return None
        if s.now_s - self._since_s < self.stall_s:
            return None
        return f"nothing moved for {s.now_s - self._since_s:.0f} s: {blocked_edge(s)}"


def blocked_edge(s: Snapshot) -> str:
    """The edge that the others wait behind, most upstream first."""
    for player in PLAYERS:
        healthy, total = s.healthy_generators[player]
        if healthy < total:
            return f"rollout waits on the {player}'s generation workers, {healthy}/{total} healthy"
    healthy, total = s.healthy_judges
    if healthy < total:
        return f"rollout waits on the judge pool, {healthy}/{total} healthy"
    for player in PLAYERS:
        if s.held[player] >= s.batch[player]:
            return f"replay holds {s.held[player]} games for the {player} learner, which does not take its {s.batch[player]}"
    if s.games_started > s.games_finished:
        return f"{s.games_started - s.games_finished} games are in flight and none ends; the engines' logs say more"
    return f"no game is dealt: {s.admission or 'admission gave no reason'}"


def progress_of(stats: Mapping[str, Any], key: str) -> int:
    """A counter out of an actor's stats; 0 while the actor has not answered yet."""
    value = stats.get(key, 0)
    return int(value) if value is not None else 0
