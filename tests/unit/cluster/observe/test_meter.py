"""The Ray meter: labels, totals, and Ray's own rules. Ray's metric classes are replaced by one that keeps what it is given."""

from typing import Any

import pytest
import ray.util.metrics

from cluster.observe.meter import RayMeter
from protocol import metrics as m


class Kept:
    made: dict[str, "Kept"]

    def __init__(self, name: str, description: str, *rest: Any) -> None:
        self.description, self.keys, self.calls = description, rest[-1], []
        Kept.made[name] = self

    def note(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.keys), "Ray raises for a missing tag"
        self.calls.append((value, tags))

    set = inc = observe = note


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Kept]:
    Kept.made = {}
    for kind in ("Gauge", "Counter", "Histogram"):
        monkeypatch.setattr(ray.util.metrics, kind, Kept)
    return Kept.made


def test_every_series_says_run_and_role(made: dict[str, Kept]) -> None:
    meter = RayMeter("paper", "generation-defender-0")
    meter.set(m.KV_USAGE, 0.5, player="defender")
    meter.set(m.PHASE, True, role="judge-1", phase="ready")
    tags = {"run": "paper", "role": "generation-defender-0", "player": "defender"}
    assert made["advgame_engine_kv_usage_ratio"].calls == [(0.5, tags)]
    assert made["advgame_phase"].calls == [(1.0, {"run": "paper", "role": "judge-1", "phase": "ready"})]


def test_totals_become_what_is_new_and_begin_anew_when_they_fall(made: dict[str, Kept]) -> None:
    meter = RayMeter("paper", "replay-0")
    for games in (3, 3, 7, 2):
        meter.total(m.GAMES_STARTED, games)
    assert [value for value, _ in made["advgame_games_started_total"].calls] == [3, 4, 2]


def test_what_is_not_known_and_what_is_nothing_is_not_told(made: dict[str, Kept]) -> None:
    meter = RayMeter("paper", "replay-0")
    meter.set(m.GAMES_LIMIT, None)
    meter.inc(m.GAMES_STARTED, 0)
    assert not made


def test_gauges_hold_though_nobody_sets_them_anew(made: dict[str, Kept]) -> None:
    meter = RayMeter("paper", "learner-defender-0")
    meter.set(m.LOSS, 0.7, player="defender")
    meter.set(m.LOSS, 0.6, player="defender")
    meter.set(m.PHASE, 1.0, phase="leasing")
    meter.inc(m.LEARNED_TOKENS, 5, player="defender")
    for kept in made.values():
        kept.calls.clear()
    meter.repeat()
    told = {name: [value for value, _ in kept.calls] for name, kept in made.items()}
    assert told == {"advgame_loss": [0.6], "advgame_phase": [1.0], "advgame_learned_tokens_total": []}
