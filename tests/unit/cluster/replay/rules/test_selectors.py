"""Samplers, removers and balance: what a step gets, what goes first, and that balance costs nobody his turn.

That no order costs the bound or liveness is `test_admission_schedules`'.
"""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.plan.replay import plan_replay
from cluster.replay.rules.leases import Row
from cluster.replay.rules.selectors import Selection
from cluster.replay.rules.table import Table
from protocol.recipe import Order, parse_recipe
from protocol.roles import CATEGORIES, PLAYERS, Category

KIND: dict[str, Category] = {"h": "harmful", "b": "benign"}


def filled(queue: str, selection: Selection, staleness: int = 9, capacity: int = 1000) -> Table[str]:
    """A table with the games 0, 1, ... of a queue as in `h0 b0 h1`: category and version, `-` for a game without rows."""
    t = Table[str](staleness, capacity, selection)
    for game_id, (kind, version) in enumerate(queue.split()):
        rows = [] if version == "-" else [Row(str(game_id), int(version), "place")]
        t.append(game_id, rows, KIND[kind])
    return t


def taken(t: Table[str], games: int, step: int = 0, version: int = 0) -> list[int]:
    lease = t.lease(step, version, games).lease
    assert lease is not None
    return [unit.game_id for unit in lease.units]


def test_fifo_gives_the_oldest_games_freshest_those_of_the_newest_versions() -> None:
    queue = "h2 h0 h- h1 h2 h1"
    assert taken(filled(queue, Selection("fifo")), 3, version=2) == [0, 1, 2]
    assert taken(filled(queue, Selection("freshest")), 3, version=2) == [0, 2, 4]
    assert taken(filled(queue, Selection("freshest")), 4, version=2) == [0, 2, 3, 4]  # of one version the oldest


def test_uniform_gives_every_game_the_same_chance_and_the_same_games_to_who_asks_again() -> None:
    counts: Counter[int] = Counter()
    queue = " ".join(["h0"] * 10)
    for step in range(2000):
        chosen = taken(filled(queue, Selection("uniform", seed=7)), 3, step)
        assert chosen == sorted(set(chosen)) and len(chosen) == 3
        assert chosen == taken(filled(queue, Selection("uniform", seed=7)), 3, step)
        counts.update(chosen)
    # 600 expected of each; the standard deviation is sqrt(2000 * 0.3 * 0.7) = 20.5, so 5 of them.
    assert set(counts) == set(range(10)) and all(abs(n - 600) < 103 for n in counts.values())


@pytest.mark.parametrize(
    ("order", "goes"),
    [("fifo", [0, 1]), ("freshest", [0, 4]), ("uniform", [5, 4])],
)
def test_what_goes_first_at_the_capacity(order: Order, goes: list[int]) -> None:
    t = filled("h2 h0 h- h1 h2 h1", Selection(remover=order, seed=3), capacity=3)
    assert t.trim() == goes and t.evicted == {"capacity": 2} and t.free == 3
    assert t.trim() == []


@pytest.mark.parametrize(
    ("queue", "games", "version", "gets"),
    [
        ("h0 h0 h0 b0 b0 b0", 4, 0, [0, 1, 3, 4]),
        ("h0 h0 h0 b0 b0 b0", 3, 0, [0, 1, 3]),  # the odd one goes to the one who waits longest
        ("h0 h0 h0 h0 b0", 4, 0, [0, 1, 2, 4]),  # one is short, the other fills up
        ("h0 h0 h0 h0 h0", 4, 0, [0, 1, 2, 3]),
        ("h0 h0 h0 b2 b2 b2", 4, 2, [0, 1, 2, 3]),  # three would be stale at version 3
        ("h1 h1 h1 b1 b2 b2", 2, 2, [0, 3]),  # four can wait for one step of two: two of them must go now
        ("h1 h1 h1 h1 b2 b2", 2, 2, [0, 1]),
        ("h1 h1 h2 b2 b2 b2", 2, 2, [0, 3]),  # two can wait for one step of two: none must go
    ],
)
def test_balance_gives_equal_shares_as_far_as_nobody_gets_stale_of_it(
    queue: str, games: int, version: int, gets: list[int]
) -> None:
    t = filled(queue, Selection(balanced=True), staleness=2)
    assert taken(t, games, 5, version) == gets


@settings(max_examples=200, deadline=None)
@given(staleness=st.integers(0, 4), games=st.integers(1, 6), seed=st.integers(0, 2**16), share=st.floats(0.0, 1.0))
def test_what_fifo_learns_in_time_is_learned_in_time_with_balance(
    staleness: int, games: int, seed: int, share: float
) -> None:
    """The bound of admission, games that end in the order in which they start, any mix of categories, any speed."""
    rng = random.Random(seed)
    t = Table[str](staleness, 10**6, Selection(balanced=True))
    game_id = step = version = executing = 0
    for _ in range(60):
        room = (staleness + 1) * games - t.free_games - executing
        for _ in range(rng.choice([0, room, rng.randint(0, room)])):
            category = CATEGORIES[rng.random() < share]
            t.append(game_id, [Row(str(game_id), version, "place")], category=category)
            game_id += 1
        if executing:
            executing, step, version = 0, step + 1, version + 1
        outcome = t.lease(step, version, games)
        assert outcome.stale == ()
        executing = games if outcome.lease is not None else 0
        assert executing or t.free_games < games, "it waits although enough games are there"


def test_a_recipe_says_the_orders_and_each_player_has_a_seed_of_its_own() -> None:
    recipe = parse_recipe({"replay": {"sampler": "uniform", "remover": "freshest", "balanced": False}})
    attacker, defender = (Selection.from_plan(plan_replay(recipe), p) for p in PLAYERS)
    assert (attacker.sampler, attacker.remover, attacker.balanced) == ("uniform", "freshest", False)
    assert attacker.seed != defender.seed
