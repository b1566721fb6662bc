"""Which part of a run the others wait for, in words. Pure: one frozen moment in, one sentence out.

A share of time is told only where it was measured. It ends no run and starts none: that is the watchdog's (`supervise.watchdog`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.observe.words import duration, join, percent
from protocol.roles import PLAYERS, Player

WAITS = 0.25  # of its time: a side that waits less than this keeps the pace of the others
BUSY = 0.8  # of its time: a part that is busier has no room to be faster


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """Workers of one kind.

    Attributes:
        fit, workers: how many serve, and how many there are; 0 of 0: nobody has looked yet.
        busy: mean share of their time with at least one question in hand; None: not measured.
    """

    fit: int = 0
    workers: int = 0
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class LearnerLoad:
    """A learner group that has steps to take, and the turn to do so.

    Attributes:
        up: whether it ever asked for rows.
        waits: share of its time that it waits for rows; None: not measured.
    """

    up: bool
    waits: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """The last seconds of a run.

    Attributes:
        learners: that have steps to take; empty: all are done.
        rollout_waits: share of the time that a rollout worker waits for a game; None: not measured.
        judge, engines: the judge workers, and each player's generation workers.
        in_flight: games; `limit`: that the engines bear, None without such a limit.
        kv_usage, queue: of the fullest engine; None: not measured.
        max_staleness: the bound.
        paused_s: for how long the judge's alarm is up.
    """

    learners: Mapping[Player, LearnerLoad]
    rollout_waits: float | None
    judge: PoolLoad
    engines: Mapping[Player, PoolLoad]
    in_flight: int
    limit: int | None
    kv_usage: float | None
    queue: int | None
    max_staleness: int
    paused_s: float


def find_bottleneck(load: Load) -> str:
    """Who waits, how much of the time, and for what; empty while nothing is known."""
    if load.paused_s > 0:
        return f"games wait: the judge's alarm has been up for {duration(load.paused_s)}"
    if not load.learners:
        return "nobody waits: every learner has taken its last step"
    if starting := [f"the {p}'s learner" for p, one in load.learners.items() if not one.up]:
        return f"learning waits: {join(starting)} {'is' if len(starting) == 1 else 'are'} starting"
    known = {p: one.waits for p, one in load.learners.items() if one.waits is not None}
    waiting = {p: share for p, share in known.items() if share >= WAITS}
    if waiting:
        return f"{_name_learners(waiting, len(load.learners))}: {_find_cause(load)}"
    if load.rollout_waits is None:
        return ""
    if load.rollout_waits < WAITS:
        return "nobody waits for long"
    games = f"games wait {percent(load.rollout_waits)}"
    if _is_full(load):
        return f"{games}: {_describe_full(load)}"
    if not known:
        return f"{games} for the learners"
    slowest = min(known, key=lambda p: known[p])
    return f"{games}: the {slowest}'s learner is the slowest part, it waits {percent(known[slowest])}"


def _name_learners(waiting: Mapping[Player, float], learners: int) -> str:
    if len(waiting) == 1 and learners > 1:
        ((player, share),) = waiting.items()
        return f"the {player}'s learner waits {percent(share)}"
    if len(waiting) == 1:
        return f"the learner waits {percent(*waiting.values())}"
    return f"learners wait ({', '.join(f'{p} {percent(share)}' for p, share in waiting.items())})"


def _find_cause(load: Load) -> str:
    """Why games come too slowly for the learners."""
    pools = {"judge pool": load.judge} | {f"{p}'s engines": load.engines[p] for p in PLAYERS if p in load.engines}
    if down := [
        f"{p.fit} of {p.workers} workers of the {name} serve" for name, p in pools.items() if p.fit < p.workers
    ]:
        return join(down)
    games_wait = load.rollout_waits is not None and load.rollout_waits >= WAITS
    if games_wait and _is_full(load):
        return _describe_full(load)
    busy = {name: pool.busy for name, pool in pools.items() if pool.busy is not None}
    if busiest := sorted((name for name in busy if busy[name] >= BUSY), key=lambda name: -busy[name]):
        return ", ".join(f"{name} busy {percent(busy[name])}" for name in busiest)
    if games_wait:
        return f"staleness {load.max_staleness} lets no more games start, and these take long"
    if busy:
        told = ", ".join(f"{name} {percent(share)}" for name, share in busy.items())
        return f"games take long, and no part of them is busy ({told})"
    return "games take long; how busy judge and engines are is not known yet"


def _is_full(load: Load) -> bool:
    return load.limit is not None and load.in_flight >= load.limit


def _describe_full(load: Load) -> str:
    queue = "" if load.queue is None else f", {load.queue} requests queue"
    kv = "" if load.kv_usage is None else f", KV cache {percent(load.kv_usage)} full"
    return f"the engines bear no more than {load.limit} games{kv}{queue}"
