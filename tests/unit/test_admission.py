"""Admission: what it says, what it refuses, and that no schedule deadlocks or learns a stale row."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.replay.admission import AdmissionRule, AdmissionState
from cluster.replay.table import Row, Table
from protocol.errors import UserError
from protocol.recipe import parse_recipe
from protocol.roles import PLAYERS, Player


def rule(staleness: int = 2, batch: int = 32) -> AdmissionRule:
    return AdmissionRule(staleness, {"attacker": batch, "defender": batch})


def test_games_are_admitted_up_to_the_bound_of_the_fuller_table() -> None:
    assert rule().bound("defender") == 96
    assert rule().admit(AdmissionState(0, {"attacker": 0, "defender": 0})).games == 96
    assert rule().admit(AdmissionState(20, {"attacker": 10, "defender": 50})).games == 26


def test_the_reason_names_the_side_the_count_and_the_limit() -> None:
    held = {"attacker": 3, "defender": 96}
    assert rule().admit(AdmissionState(0, held)).why == (  # type: ignore[arg-type]
        "defender has 96 unlearned games of 96 allowed at staleness 2"
    )
    flying = rule().admit(AdmissionState(90, {"attacker": 3, "defender": 6}))
    assert flying.games == 0
    assert flying.why == "defender has 6 unlearned games and 90 in flight of 96 allowed at staleness 2"


def test_a_learner_that_is_done_or_frozen_bounds_nothing() -> None:
    full = AdmissionState(0, {"attacker": 10**6, "defender": 0}, frozenset({"attacker"}))
    assert rule().admit(full).games == 96
    alone = AdmissionRule(0, {"attacker": 8, "defender": 8}, learns=["defender"])
    assert alone.admit(AdmissionState(0, {"attacker": 10**6, "defender": 5})).games == 3
    done = rule().admit(AdmissionState(0, {"attacker": 0, "defender": 0}, frozenset(PLAYERS)))
    assert (done.games, done.why) == (0, "every learner has taken its last step")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: rule(staleness=-1), "replay.max_staleness: -1 is below 0"),
        (lambda: rule(batch=0), "learners.attacker.batch_games: 0 is below 1"),
        (lambda: AdmissionRule(1, {"attacker": 1, "defender": 1}, learns=[]), "learners: 0 players learn"),
        (
            lambda: AdmissionRule.from_recipe(parse_recipe({"replay": {"capacity_rows": 127}})),
            "replay.capacity_rows: 127 is below the 128 rows that a batch of 64 games may give the defender; "
            "set replay.capacity_rows to at least 128",
        ),
    ],
)
def test_settings_that_would_deadlock_are_refused(build: Callable[[], object], says: str) -> None:
    with pytest.raises(UserError) as refused:
        build()
    assert says in str(refused.value) and "\n" not in str(refused.value)


class World:
    """Workers and learners around the real rule and tables; who moves next is the test's choice."""

    def __init__(self, staleness: int, batch: dict[Player, int], attacks: int, steps: int, rng: random.Random) -> None:
        self.rule = AdmissionRule(staleness, batch)
        self.tables: dict[Player, Table[None]] = {p: Table(staleness, 10**6) for p in PLAYERS}
        self.staleness, self.batch, self.attacks, self.steps, self.rng = staleness, batch, attacks, steps, rng
        self.step = dict.fromkeys(PLAYERS, 0)
        self.executing: dict[Player, bool] = dict.fromkeys(PLAYERS, False)
        self.served = dict.fromkeys(PLAYERS, 0)  # the version that workers sample with
        self.open: list[tuple[int, dict[Player, int]]] = []
        self.dealt = 0

    def deal(self) -> bool:
        state = AdmissionState(
            len(self.open),
            {p: t.unlearned for p, t in self.tables.items()},
            frozenset(p for p, t in self.tables.items() if t.finished),
        )
        games = self.rule.admit(state).games
        for _ in range(self.rng.randint(1, games) if games else 0):
            self.open.append((self.dealt, dict(self.served)))
            self.dealt += 1
        for p in PLAYERS:
            if not self.tables[p].finished:
                assert len(self.open) + self.tables[p].unlearned <= (self.staleness + 1) * self.batch[p]
        return games > 0

    def end(self, useful: bool) -> bool:
        """A game in flight is finished, or abandoned now and then."""
        if not self.open:
            return False
        game_id, versions = self.open.pop(self.rng.randrange(len(self.open)))
        if not useful and self.rng.random() < 0.2:
            return True
        for p in PLAYERS:
            rows = 1 if p == "attacker" else self.rng.randint(0, self.attacks)
            why = None if useful or self.rng.random() < 0.5 else self.rng.choice(["tie", "no_pair"])
            self.tables[p].append(game_id, [Row(f"{game_id}/{p}/{k}", versions[p], None, why) for k in range(rows)])
        return True

    def learn(self, player: Player) -> bool:
        """The learner asks for its next batch, or executes the one it has and publishes."""
        if self.tables[player].finished:
            return False
        if self.executing[player]:
            self.executing[player] = False
            self.step[player] += 1
            if self.step[player] == self.steps:
                self.tables[player].acknowledge(self.steps)
                self.tables[player].finish()
            return True
        lease = self.tables[player].lease(self.step[player], self.step[player], self.batch[player]).lease
        if lease is None:
            return False
        assert all(0 <= s <= self.staleness for s in lease.staleness)
        self.executing[player] = True
        return True

    def deliver(self) -> bool:
        moved = self.served != self.step
        self.served = dict(self.step)
        return moved

    def count(self) -> None:
        for t in self.tables.values():
            assert t.learned + t.evicted.total() + t.held == t.appended


@settings(max_examples=150, deadline=None)
@given(
    staleness=st.integers(0, 3),
    attacker=st.integers(1, 5),
    defender=st.integers(1, 5),
    attacks=st.integers(1, 7),
    moves=st.lists(st.sampled_from(["deal", "end", "attacker", "defender", "deliver"]), max_size=120),
    seed=st.integers(0, 2**16),
)
def test_no_schedule_deadlocks_or_learns_a_stale_row(
    staleness: int, attacker: int, defender: int, attacks: int, moves: list[str], seed: int
) -> None:
    world = World(staleness, {"attacker": attacker, "defender": defender}, attacks, 6, random.Random(seed))
    act: dict[str, Callable[[], bool]] = {
        "deal": world.deal,
        "end": lambda: world.end(useful=False),
        "attacker": lambda: world.learn("attacker"),
        "defender": lambda: world.learn("defender"),
        "deliver": world.deliver,
    }
    for move in moves:
        act[move]()
        world.count()
    # From wherever that led: if everybody does what they can, both learners get to their last step.
    for _ in range(2000):
        if all(t.finished for t in world.tables.values()):
            break
        moved = [world.deliver(), world.deal(), world.end(useful=True), *(world.learn(p) for p in PLAYERS)]
        world.count()
        assert any(moved), "nobody can move: a deadlock"
    assert world.step == {"attacker": 6, "defender": 6}
