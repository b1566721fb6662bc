"""What the replay buffer tells about itself: counts, staleness, and which side waits for which."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cluster.replay.rules.admission import Admission, AdmissionRule
from cluster.replay.rules.alarm import Alarm
from cluster.replay.rules.dealer import Dealer
from cluster.replay.rules.table import Table
from cluster.replay.rules.tally import Tally
from cluster.replay.rules.turns import Roster
from cluster.replay.store.segment_file import Place
from protocol.roles import Player


class WaitClock:
    """How long somebody of each side has waited: seconds with at least one waiter, not summed over waiters."""

    def __init__(self) -> None:
        self._waiters: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._total: dict[str, float] = {}

    @contextmanager
    def waiting(self, side: str) -> Iterator[None]:
        """Counts the caller as waiting on `side` while the block runs."""
        if not self._waiters.get(side):
            self._since[side] = time.monotonic()
        self._waiters[side] = self._waiters.get(side, 0) + 1
        try:
            yield
        finally:
            self._waiters[side] -= 1
            if not self._waiters[side]:
                self._total[side] = self._total.get(side, 0.0) + time.monotonic() - self._since[side]

    def read(self, side: str) -> dict[str, Any]:
        """``{"waiting": waiters now, "for_s": how long already, "total_s": over the run}``."""
        waiters = self._waiters.get(side, 0)
        for_s = time.monotonic() - self._since[side] if waiters else 0.0
        return {"waiting": waiters, "for_s": for_s, "total_s": self._total.get(side, 0.0) + for_s}


def replay_stats(
    dealer: Dealer,
    tables: Mapping[Player, Table[Place]],
    batch_games: Mapping[Player, int],
    tally: Tally,
    rule: AdmissionRule,
    admission: Admission,
    waits: WaitClock,
    roster: Roster,
    alarm: Alarm,
    now_s: float,
) -> dict[str, Any]:
    """Plain dicts, numbers and strings.

    ``games.abandoned`` maps reasons to numbers; ``rows.PLAYER.held`` includes the leased ones, so learned + evicted + held ==
    appended. ``lost`` are rows, never appended, that crashes cut off before anybody was told of them; perhaps more if
    ``lost_at_least``. ``held_games`` counts the games that wait for a step. Staleness is over rows that a step got, learned or
    still leased. ``turn`` is the player on turn, None where nobody takes turns. ``alarm``: how often the judge's was raised, for
    how long it is up (0: it is not), seconds paused in all, and the share of the latest verdicts that failed.
    """
    turn = roster.turn(roster.standing(tables))
    got = {p: t.learned + t.leased for p, t in tables.items()}
    return {
        "games": {
            "started": dealer.started,
            "finished": dealer.finished,
            "abandoned": dict(dealer.abandoned),
            "open": dealer.open_games,
            "redealt": dealer.redealt,
            "late": dealer.late,
        },
        "rows": {
            p: {
                "appended": t.appended,
                "learned": t.learned,
                "leased": t.leased,
                "free": t.free,
                "held": t.held,
                "duplicates": t.duplicates,
                "lost": t.lost,
                "lost_at_least": t.lost_at_least,
                "evicted": dict(t.evicted),
            }
            for p, t in tables.items()
        },
        "held_games": {p: t.free_games for p, t in tables.items()},
        "staleness": {
            "bound": rule.max_staleness,
            "max_learned": max(t.max_learned for t in tables.values()),
            "mean_learned": _mean(sum(t.staleness_sum for t in tables.values()), sum(got.values())),
            **{
                p: {"max_learned": t.max_learned, "mean_learned": _mean(t.staleness_sum, got[p])}
                for p, t in tables.items()
            },
        },
        "states": tally.states,
        "judge": tally.judge,
        "rewards": {p: tally.reward_mean(p) for p in tables},
        "versions": {p: t.version for p, t in tables.items()},
        "alarm": {
            "raised": alarm.raised,
            "up_s": alarm.up_s(now_s),
            "paused_s": alarm.paused_s + alarm.up_s(now_s),
            "failure_rate": alarm.failure_rate,
        },
        "turn": None if turn is None else turn.player,
        "admission": {"admitted_now": admission.games, "why": admission.why},
        "waits": {
            "rollout": {**waits.read("rollout"), "on": admission.why},
            **{
                p: {
                    **waits.read(p),
                    "on": f"{p} has {t.free_games} of the {batch_games[p]} games of step {t.next_step}"
                    if turn is None or turn.player == p
                    else f"{p} waits for the end of the {turn.player}'s turn",
                }
                for p, t in tables.items()
            },
        },
    }


def _mean(total: int, count: int) -> float:
    return total / count if count else 0.0
