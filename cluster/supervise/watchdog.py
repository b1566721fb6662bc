"""When nothing moves, says which edge is blocked (DESIGN.md, "Failure": "nobody, but nothing moves").

Pure: one snapshot of counters in, a finding or None out. It owns no timer and kills nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.roles import PLAYERS, Player


@dataclass(frozen=True)
class Snapshot:
    """What the driver saw at one moment. Counts only ever grow, save for `healthy`, and `steps` where a learner goes back."""

    now_s: float
    steps: Mapping[Player, int]
    games_finished: int
    games_started: int
    games_abandoned: int
    tokens: int
    verdicts: int
    held: Mapping[Player, int]  # games that wait for a step, of the players that may take one now
    batch: Mapping[Player, int]
    healthy_judges: tuple[int, int]  # (healthy, all)
    healthy_generators: Mapping[Player, tuple[int, int]]
    admission: str = ""
    paused_s: float = 0.0  # for how long the judge's alarm is up


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a run must end.

    Attributes:
        why: in one line.
        still: nothing moves, so that the stacks of its processes say where it hangs; false where games come and go.
    """

    why: str
    still: bool = False


@dataclass
class Watchdog:
    """Feeds on snapshots; `check` gives the reason once nothing has moved for `stall_s` seconds.

    Giving up games is no movement: `abandoned_in_a_row` of them with none finished in between end the run at once. Nor are the
    games that ask a failing judge again: a pause of `stall_s` ends the run whatever else moves.
    """

    stall_s: float
    abandoned_in_a_row: int
    _last: tuple[int, ...] = ()
    _since_s: float = 0.0
    _finished: int = 0
    _abandoned: int = 0  # when the last game finished

    def check(self, s: Snapshot) -> Finding | None:
        """None while any counter moves; else why nothing does."""
        if s.games_finished != self._finished:
            self._finished, self._abandoned = s.games_finished, s.games_abandoned
        in_a_row = s.games_abandoned - self._abandoned
        if in_a_row >= self.abandoned_in_a_row:
            return Finding(
                f"the last {in_a_row} games were all given up; games.abandoned_by and logs/rollout-*.log say why"
            )
        if s.paused_s >= self.stall_s:
            return Finding(f"no end of a pause of {s.paused_s:.0f} s: {s.admission}")
        moving = (*(s.steps[p] for p in PLAYERS), s.games_finished, s.tokens, s.verdicts)
        rose = not self._last or any(now > before for now, before in zip(moving, self._last, strict=True))
        self._last = moving
        if rose:  # a count that falls is a part that started anew, and no movement
            self._since_s = s.now_s
            return None
        if s.now_s - self._since_s < self.stall_s:
            return None
        return Finding(f"nothing moved for {s.now_s - self._since_s:.0f} s: {blocked_edge(s)}", still=True)


def blocked_edge(s: Snapshot) -> str:
    """The edge that the others wait behind, most upstream first."""
    for player in PLAYERS:
        healthy, total = s.healthy_generators[player]
        if healthy < total:
            return f"rollout waits on the {player}'s generation workers, {healthy}/{total} healthy"
    healthy, total = s.healthy_judges
    if healthy < total:
        return f"rollout waits on the judge pool, {healthy}/{total} healthy"
    for player, held in s.held.items():
        if held >= s.batch[player]:
            return f"replay holds {held} games for the {player} learner, which does not take its {s.batch[player]}"
    in_flight = s.games_started - s.games_finished - s.games_abandoned
    if in_flight > 0:
        return f"{in_flight} games are in flight and none ends; the engines' logs say more"
    return f"no game is dealt: {s.admission or 'admission gave no reason'}"
