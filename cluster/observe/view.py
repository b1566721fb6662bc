"""One moment of a run, from the stats of its actors: the shape that progress, metrics and the watchdog read.

Pure. Where an actor has not answered, its last answer stands.
"""

from collections.abc import Mapping
from typing import Any

from cluster.supervise.watchdog import Snapshot
from protocol.recipe import Recipe
from protocol.roles import PLAYERS, Player

Stats = Mapping[str, Any]


def view_of(recipe: Recipe, replay: Stats, publisher: Stats, pool: Stats) -> dict[str, Any]:
    """The moment, by name.

    Args:
        replay: `ReplayBuffer.stats()`; empty before its first answer.
        publisher: `WeightPublisher.stats()`; empty before its first answer.
        pool: `JudgePool.stats()` of the rollout worker; empty before its first answer.
    """
    games = replay.get("games", {})
    judge = replay.get("judge", {})
    staleness = replay.get("staleness", {})
    alarm = replay.get("alarm", {})
    pressure = replay.get("pressure") or {}
    compared = judge.get("comparisons", 0)
    abandoned = sum(games.get("abandoned", {}).values())
    view: dict[str, Any] = {
        "run": recipe.run.name,
        "steps": recipe.run.steps,
        "started": games.get("started", 0),
        "finished": games.get("finished", 0),
        "abandoned": abandoned,
        "in_flight": games.get("started", 0) - games.get("finished", 0) - abandoned,
        "limit": pressure.get("limit"),
        "kv_usage": pressure.get("kv_usage"),
        "queue": pressure.get("waiting"),
        "preemptions": pressure.get("preemptions"),
        "limit_cuts": pressure.get("cuts"),
        "verdicts": judge.get("verdicts", 0),
        "failed": judge.get("failed", 0),
        "cache_hits": pool.get("cache_hits"),
        # In one order nothing can flip: a rate of 0 would be a measurement that nobody took.
        "flip_rate": judge["disagreements"] / compared if compared and recipe.both_orders else None,
        "failure_rate": alarm.get("failure_rate"),
        "paused_s": alarm.get("up_s", 0.0),
        "paused": float(alarm.get("up_s", 0.0) > 0),
        "staleness": staleness.get("max_learned"),
        "bound": recipe.replay.max_staleness,
        "why": replay.get("admission", {}).get("why", ""),
        "turn": replay.get("turn"),
    }
    for player in PLAYERS:
        view[player] = _player(player, recipe, replay, publisher)
    return view


def _player(player: Player, recipe: Recipe, replay: Stats, publisher: Stats) -> dict[str, Any]:
    mine = publisher.get("players", {}).get(player, {})
    metrics = mine.get("metrics") or {}
    rows = replay.get("rows", {}).get(player, {})
    pushes = mine.get("pushes", {})
    return {
        "learns": player in recipe.trained,
        "step": mine.get("step", 0),
        "steps": recipe.run.steps,
        "version": mine.get("newest", 0),
        "loss": metrics.get("loss"),
        "accuracy": metrics.get("accuracy"),
        "reward": replay.get("rewards", {}).get(player),
        "held": replay.get("held_games", {}).get(player, 0),
        "rows": rows,
        "push_s": pushes.get("total_s"),
        "pause_s": pushes.get("pause_s"),
    }


def snapshot_of(
    recipe: Recipe, view: Mapping[str, Any], now_s: float, tokens: int, healthy: Mapping[str, tuple[int, int]]
) -> Snapshot:
    """The watchdog's share of the moment.

    Args:
        tokens: generated so far by all engines.
        healthy: (healthy, all) under "judge" and each player's name.
    """
    return Snapshot(
        now_s=now_s,
        steps={p: view[p]["step"] for p in PLAYERS},
        games_finished=view["finished"],
        games_started=view["started"],
        games_abandoned=view["abandoned"],
        tokens=tokens,
        verdicts=view["verdicts"],
        held={p: view[p]["held"] for p in PLAYERS if view["turn"] in (None, p)},
        batch={p: recipe.learners.of(p).batch_games for p in PLAYERS},
        healthy_judges=healthy["judge"],
        healthy_generators={p: healthy[p] for p in PLAYERS},
        admission=view["why"],
        paused_s=view["paused_s"],
    )
