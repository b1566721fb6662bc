"""The run's metrics on Ray's own Prometheus endpoint, set by the driver once a second.

Names start with `advgame_` there (Ray adds `ray_` before it). What a metric means is its description, here and nowhere else.
"""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

from cluster.observe.view import RunView

PLAYER_GAUGES = {  # by the names of `PlayerView`'s attributes
    "version": "newest policy version that was published",
    "step": "optimizer steps taken",
    "loss": "loss of the newest step",
    "accuracy": "share of pairs of the newest step whose chosen item the policy prefers more than its reference does",
    "reward": "mean reward of the newest games, penalties included",
    "held": "finished games waiting to be learned",
    "ties": "share of all rows so far whose items were all worth the same; not with GRPO, which sorts none out",
    "push_s": "seconds of the newest weight push, staging not counted",
    "pause_s": "seconds that generation stood still for it",
}
RUN_GAUGES = {  # by the names of `RunView`'s attributes
    "started": "games dealt",
    "finished": "games finished",
    "abandoned": "games given up, for any reason",
    "in_flight": "games being played",
    "limit": "games that may be played at once, as far as the engines of both players bear them (generation.backpressure)",
    "limit_cuts": "times that limit was cut, because an engine preempted requests",
    "kv_usage": "share of the KV cache in use, of the fullest engine of both players in the last report",
    "queue": "requests waiting, in the engine of both players where most did in the last report",
    "preemptions": "requests that an engine of either player took the KV cache from, as seen since the replay buffer started",
    "valid_attacks": "share of all attacks so far that ended in time and in their format",
    "faithful_attacks": "share of those that kept their seed's meaning, the ones left out on which the judge failed",
    "verdicts": "verdicts asked for",
    "failed": "verdicts that could not be had",
    "failure_rate": "share of the latest verdicts (judge.alarm.window of them) that could not be had",
    "unread_rate": "share of the texts that the judge wrote, since its workers started, that held no verdict that can be read",
    "cost": "what the API judge has cost so far, in the currency of its prices",
    "cache_hits": "verdicts that were remembered, or on their way already, and asked of no judge; since the rollout worker started",
    "flip_rate": "share of the compared pairs so far whose winner changed with their order",
    "paused": "1 while the judge's alarm is up and no game is dealt but to ask it again, else 0",
    "probe_drift": "mean absolute change of the probe set's scores since it was first judged, in points of 10",
    "probe_changed": "share of the probe set's answers that are not the first ones",
    "probe_accuracy": "share of the probe set's answers that equal their labels",
    "staleness": "largest staleness of a learned row so far, in policy versions",
    "bound": "the staleness bound",
}
ROW_STATES = ("appended", "learned", "held")


class Metrics:
    """Gauges for one run."""

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._player = {
            key: Gauge(f"advgame_player_{key}", description=text, tag_keys=("run", "player"))
            for key, text in PLAYER_GAUGES.items()
        }
        self._evicted = Gauge(
            "advgame_rows_evicted", description="rows dropped, by reason", tag_keys=("run", "player", "reason")
        )
        self._rows = Gauge(
            "advgame_rows", description="rows, by what became of them", tag_keys=("run", "player", "state")
        )
        self._states = {
            what: Gauge(
                f"advgame_{what}s",
                description=f"{what}s of finished games, by how they ended",
                tag_keys=("run", "state"),
            )
            for what in ("attack", "response")
        }
        self._run = {
            key: Gauge(f"advgame_{key}", description=text, tag_keys=("run",)) for key, text in RUN_GAUGES.items()
        }

    def update(self, view: RunView) -> None:
        """Sets every gauge whose value is known."""
        for key, gauge in self._run.items():
            _set(gauge, getattr(view, key), self._tags)
        ended: dict[str, Mapping[Any, int]] = {"attack": view.states.attack, "response": view.states.response}
        for what, counts in ended.items():
            for state, n in counts.items():
                _set(self._states[what], n, {**self._tags, "state": state})
        for player, seen in view.players.items():
            tags = {**self._tags, "player": player}
            for key, gauge in self._player.items():
                _set(gauge, getattr(seen, key), tags)
            for state in ROW_STATES:
                _set(self._rows, getattr(seen.rows, state), {**tags, "state": state})
            for reason, n in seen.rows.evicted.items():
                _set(self._evicted, n, {**tags, "reason": reason})


def _set(gauge: Gauge, value: float | None, tags: dict[str, str]) -> None:
    if value is not None:
        gauge.set(float(value), tags=tags)
