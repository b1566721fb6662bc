"""A frozen moment in, a sentence out: who waits, and for which part."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.observe.bottleneck import LearnerLoad, Load, PoolLoad, find_bottleneck

QUIET = Load(
    learners={"attacker": LearnerLoad(True, 0.1), "defender": LearnerLoad(True, 0.05)},
    rollout_waits=0.1,
    judge=PoolLoad(2, 2, 0.3),
    engines={"attacker": PoolLoad(1, 1, 0.4), "defender": PoolLoad(1, 1, 0.5)},
    in_flight=6,
    limit=8,
    kv_usage=0.93,
    queue=3,
    max_staleness=4,
    paused_s=0.0,
)
HUNGRY = replace(QUIET, learners={"attacker": LearnerLoad(True, 0.62), "defender": LearnerLoad(True, 0.4)})
UNMEASURED = {"judge": PoolLoad(2, 2), "engines": {"attacker": PoolLoad(1, 1), "defender": PoolLoad(1, 1)}}
BOTH = "learners wait (attacker 62 %, defender 40 %): "


@pytest.mark.parametrize(
    ("moment", "change", "said"),
    [
        pytest.param(QUIET, {}, "nobody waits for long", id="all keep pace"),
        pytest.param(HUNGRY, {"judge": PoolLoad(2, 2, 0.98)}, BOTH + "judge pool busy 98 %", id="judge"),
        pytest.param(
            HUNGRY,
            {"engines": {"attacker": PoolLoad(1, 1, 0.85), "defender": PoolLoad(1, 1, 0.97)}},
            BOTH + "defender's engines busy 97 %, attacker's engines busy 85 %",
            id="engines, the busiest first",
        ),
        pytest.param(
            HUNGRY,
            {"rollout_waits": 0.7, "in_flight": 8, "judge": PoolLoad(2, 2, 0.98)},
            BOTH + "the engines bear no more than 8 games, KV cache 93 % full, 3 requests queue",
            id="backpressure",
        ),
        pytest.param(
            HUNGRY,
            {"rollout_waits": 0.7, "max_staleness": 0},
            BOTH + "staleness 0 lets no more games start, and these take long",
            id="staleness",
        ),
        pytest.param(
            HUNGRY,
            {"judge": PoolLoad(1, 2, 0.98)},
            BOTH + "1 of 2 workers of the judge pool serve",
            id="workers are down",
        ),
        pytest.param(
            HUNGRY,
            {},
            BOTH
            + "games take long, and no part of them is busy (judge pool 30 %, attacker's engines 40 %, defender's engines 50 %)",
            id="nothing is busy",
        ),
        pytest.param(
            HUNGRY,
            UNMEASURED,
            BOTH + "games take long; how busy judge and engines are is not known yet",
            id="not measured",
        ),
        pytest.param(
            HUNGRY,
            {"learners": {"attacker": LearnerLoad(True, 0.0), "defender": LearnerLoad(True, 0.5)}, **UNMEASURED},
            "the defender's learner waits 50 %: games take long; how busy judge and engines are is not known yet",
            id="one learner of two",
        ),
        pytest.param(
            HUNGRY,
            {"learners": {"defender": LearnerLoad(True, 0.5)}, "judge": PoolLoad(1, 1, 0.9)},
            "the learner waits 50 %: judge pool busy 90 %",
            id="the only learner",
        ),
        pytest.param(
            QUIET,
            {"rollout_waits": 0.8},
            "games wait 80 %: the defender's learner is the slowest part, it waits 5 %",
            id="learner",
        ),
        pytest.param(
            QUIET,
            {"rollout_waits": 0.8, "in_flight": 8, "kv_usage": None, "queue": None},
            "games wait 80 %: the engines bear no more than 8 games",
            id="backpressure alone",
        ),
        pytest.param(
            QUIET,
            {"rollout_waits": 0.8, "limit": None, "learners": {"defender": LearnerLoad(True)}},
            "games wait 80 % for the learners",
            id="learners whose waiting is not measured",
        ),
        pytest.param(
            QUIET,
            {"learners": {"attacker": LearnerLoad(False), "defender": LearnerLoad(False)}, "rollout_waits": 0.9},
            "learning waits: the attacker's learner and the defender's learner are starting",
            id="learners start",
        ),
        pytest.param(
            QUIET,
            {"learners": {"attacker": LearnerLoad(False), "defender": LearnerLoad(True, 0.9)}},
            "learning waits: the attacker's learner is starting",
            id="one learner starts",
        ),
        pytest.param(HUNGRY, {"paused_s": 95.0}, "games wait: the judge's alarm has been up for 2 min", id="alarm"),
        pytest.param(
            QUIET, {"learners": {}}, "nobody waits: every learner has taken its last step", id="learning is over"
        ),
        pytest.param(QUIET, {"learners": {"defender": LearnerLoad(True)}, "rollout_waits": None}, "", id="unknown"),
    ],
)
def test_the_bottleneck_in_words(moment: Load, change: dict[str, Any], said: str) -> None:
    assert find_bottleneck(replace(moment, **change)) == said
