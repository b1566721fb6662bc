"""No schedule deadlocks, learns a stale row, or loses a game: random runs without machines (`tests.unit.cluster.replay.schedules`).

`make test-schedules` plays 10,000 of them; here are as many as a few seconds allow.
"""

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.plan.replay import AdmissionNumbers
from cluster.replay.rules.admission import AdmissionRule, AdmissionState
from cluster.replay.rules.leases import Row
from cluster.replay.rules.table import Table
from protocol.roles import PLAYERS
from tests.unit.cluster.replay.schedule_settings import Setting
from tests.unit.cluster.replay.schedules import World

SCHEDULES = int(os.environ.get("ADVGAME_SCHEDULES", "200"))
ORDERS = st.sampled_from(["fifo", "uniform", "freshest"])
SETTINGS = st.builds(
    Setting,
    staleness=st.integers(0, 4),
    attacker=st.integers(1, 5),
    defender=st.integers(1, 5),
    attacks=st.integers(1, 4),
    learns=st.sampled_from([PLAYERS, PLAYERS, PLAYERS, ("attacker",), ("defender",)]),
    alternate=st.sampled_from([None, None, 1, 2, 3, 7]),
    steps=st.integers(1, 8),
    push_every=st.sampled_from([1, 1, 2, 3]),
    spread=st.booleans(),
    replicas=st.integers(1, 4),
    sampler=ORDERS,
    remover=ORDERS,
    balanced=st.booleans(),
    spare_rows=st.sampled_from([None, None, 0, 1, 5]),
    in_flight=st.integers(1, 12),
    places=st.sampled_from([1, 4, 64]),
    backpressure=st.booleans(),
    bears=st.integers(0, 8),  # 0: every report has a preemption while a game is open
    reports=st.booleans(),
    rollouts=st.integers(1, 3),
    one_category=st.booleans(),
    faults=st.sampled_from([0.0, 0.05, 0.3]),
    slow=st.sampled_from(["", "attacker", "defender", "rollout-0", "publisher", "replicas", "driver", "post"]),
).map(
    lambda s: replace(
        s,
        spread=s.spread and s.staleness >= 2 and s.replicas >= 2,
        alternate=s.alternate if len(s.learns) == 2 else None,
    )
)
MOVES = st.integers(0, 150)
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=SCHEDULES, deadline=None)
@given(setting=SETTINGS, moves=MOVES, seed=SEEDS)
# The defender has executed its last step and the attacker is short of a game: room comes only of the defender's asking.
@example(setting=Setting(attacker=2, steps=1), moves=0, seed=1)
@example(
    setting=Setting(staleness=4, spread=True, replicas=3, alternate=2, sampler="freshest", bears=0), moves=150, seed=2
)
def test_no_schedule_deadlocks_learns_a_stale_row_or_loses_a_game(setting: Setting, moves: int, seed: int) -> None:
    world = World(setting, random.Random(seed))
    world.play(moves)  # checks its books after every move
    assert {world.learners[p].does for p in world.learns} == {"done"}
    assert all(len(ends) == 1 for ends in world.ends.values()), "every game ended once"


@settings(max_examples=60, deadline=None)
@given(
    setting=SETTINGS.map(lambda s: replace(s, learns=PLAYERS, alternate=s.alternate or 2, faults=0.0)),
    moves=MOVES,
    seed=SEEDS,
)
def test_turns_come_in_order_whoever_is_faster(setting: Setting, moves: int, seed: int) -> None:
    world = World(setting, random.Random(seed))
    world.play(moves)
    every = (setting.alternate or 2) * setting.push_every
    in_turns = sorted(
        ((p, k) for p in PLAYERS for k in range(setting.steps)), key=lambda x: (x[1] // every, x[0], x[1])
    )
    assert world.in_order == in_turns
    assert not world.games["attacker"] & world.games["defender"], "a game is learned by the player on turn alone"


@settings(max_examples=40, deadline=None)
@given(setting=SETTINGS.map(lambda s: replace(s, learns=("defender",), alternate=None)), seed=SEEDS)
def test_a_frozen_players_rows_are_all_evicted_and_hold_nobody_up(setting: Setting, seed: int) -> None:
    world = World(setting, random.Random(seed))
    world.play(0)
    frozen = world.tables["attacker"]
    assert frozen.evicted == {"frozen": frozen.appended} and frozen.appended > 0
    assert {version for name, version in world.serves.items() if name.startswith("attacker")} <= {0}


def more_games(world: World) -> None:
    world.rule.max_staleness += 1


def older_rows(world: World) -> None:
    for table in world.tables.values():
        table.max_staleness += 1


def no_floor(world: World) -> None:
    assert world.pressure is not None
    world.pressure.limit = lambda now_s: 0  # type: ignore[method-assign]


def too_little_capacity(world: World) -> None:
    world.tables["defender"].capacity = 2


def games_end_twice(world: World) -> None:
    world.dealer.is_final = lambda game_id: False  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("breaks", "notices"),
    [
        (more_games, "more games than the bound"),
        (older_rows, "a stale row is learned"),
        (no_floor, "nobody can move: a deadlock"),
        (too_little_capacity, "a livelock"),
        (games_end_twice, "a row arrived twice"),
    ],
)
def test_these_checks_notice_what_they_are_for(breaks: Callable[[World], None], notices: str) -> None:
    setting = Setting(staleness=2, attacker=3, defender=3, faults=0.3, rollouts=2, spread=True, replicas=2)
    with pytest.raises(AssertionError, match=notices):
        for seed in range(50):
            world = World(setting, random.Random(seed))
            breaks(world)
            world.play(150)


@pytest.mark.parametrize(("staleness", "behind"), [(0, 0), (1, 0), (4, 0), (2, 1), (4, 1), (6, 3), (3, 3)])
@pytest.mark.parametrize("more", [0, 1])
def test_the_bound_is_as_wide_as_freshness_allows(staleness: int, behind: int, more: int) -> None:
    """In order, with every game from the oldest replica and all the room used: nothing goes stale, and one batch more would."""
    batch = 4
    rule = AdmissionRule(AdmissionNumbers(staleness + more, dict.fromkeys(PLAYERS, batch), ("defender",), behind))
    table: Table[None] = Table(staleness, 10**6)
    games = 0
    for step in range(20):  # at version `step`: each step is pushed
        table.ask(step, step)
        state = AdmissionState(0, dict.fromkeys(PLAYERS, table.unlearned))
        for _ in range(rule.admit(state).games):
            version = max(0, step - behind)
            table.append(games, [Row(str(games), version, None)], "harmful")
            games += 1
        outcome = table.lease(step, step, batch)
        assert outcome.lease is not None
    assert table.max_learned == staleness
    assert (table.evicted["stale"] > 0) == (more > 0)
