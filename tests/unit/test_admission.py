"""Admission: what it says, what it refuses, and that no schedule deadlocks or learns a stale row."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.replay.admission import AdmissionRule, AdmissionState
from cluster.replay.table import Row, Table
from cluster.replay.turns import Roster, Turn
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


@dataclass(frozen=True)
class Setting:
    """A run, as far as admission, tables and turns see it."""

    staleness: int = 0
    attacker: int = 1
    defender: int = 1
    attacks: int = 1
    learns: tuple[Player, ...] = PLAYERS
    every: int | None = None
    steps: int = 6


SETTINGS = st.builds(
    Setting,
    staleness=st.integers(0, 3),
    attacker=st.integers(1, 5),
    defender=st.integers(1, 5),
    attacks=st.integers(1, 7),
    learns=st.sampled_from([PLAYERS, PLAYERS, ("attacker",), ("defender",)]),
    every=st.sampled_from([None, None, 1, 2, 3, 4, 7]),
)
MOVES = ["deal", "end", "attacker", "defender", "deliver", "checkpoint", "crash attacker", "crash defender"]


class World:
    """Workers and learners around the real rule, tables and turns; who moves next is the test's choice."""

    def __init__(self, s: Setting, rng: random.Random) -> None:
        self.s, self.rng = s, rng
        self.batch: dict[Player, int] = {"attacker": s.attacker, "defender": s.defender}
        self.rule = AdmissionRule(s.staleness, self.batch, s.learns)
        self.roster = Roster(s.learns, s.steps, s.every)
        self.tables: dict[Player, Table[None]] = {p: Table(s.staleness, 10**6) for p in PLAYERS}
        self.step, self.version, self.saved = (
            dict.fromkeys(PLAYERS, 0),
            dict.fromkeys(PLAYERS, 0),
            dict.fromkeys(PLAYERS, 0),
        )
        self.executing: dict[Player, bool] = dict.fromkeys(PLAYERS, False)
        self.served = dict.fromkeys(PLAYERS, 0)  # the version that workers sample with
        self.open: list[tuple[int, dict[Player, int]]] = []
        self.dealt = 0
        self.learned: list[tuple[Player, int]] = []  # in the order in which steps got their games
        self.games: dict[Player, set[int]] = {p: set() for p in PLAYERS}
        self.no_games: dict[Player, set[int]] = {p: set() for p in PLAYERS}  # the judge failed, and nothing is left

    @property
    def turn(self) -> Turn | None:
        return self.roster.turn(self.roster.standing(self.tables))

    def deal(self) -> bool:
        finished = self.roster.standing(self.tables).finished
        turn = self.turn
        state = AdmissionState(len(self.open), {p: t.unlearned for p, t in self.tables.items()}, finished, turn)
        games = self.rule.admit(state).games
        for _ in range(self.rng.randint(1, games) if games else 0):
            self.open.append((self.dealt, dict(self.served)))
            self.dealt += 1
        if games:
            for p in [turn.player] if turn else [p for p in self.s.learns if p not in finished]:
                assert len(self.open) + self.tables[p].unlearned <= (self.s.staleness + 1) * self.batch[p]
                assert turn is None or len(self.open) + self.tables[p].unlearned <= turn.steps_left * self.batch[p]
        return games > 0

    def end(self, useful: bool) -> bool:
        """A game in flight is finished, or abandoned now and then."""
        if not self.open:
            return False
        game_id, versions = self.open.pop(self.rng.randrange(len(self.open)))
        if not useful and self.rng.random() < 0.2:
            return True
        standing = self.roster.standing(self.tables)
        for p in PLAYERS:
            rows = 1 if p == "attacker" else self.rng.randint(0, self.s.attacks)
            why = None if useful or self.rng.random() < 0.5 else self.rng.choice(["tie", "no_pair"])
            made = [Row(f"{game_id}/{p}/{k}", versions[p], None, why) for k in range(rows)]
            spoilt = not useful and self.rng.random() < 0.3
            self.tables[p].append(game_id, made, self.roster.refusal(p, standing), spoilt)
            if spoilt and (why or not rows):
                self.no_games[p].add(game_id)
        return True

    def learn(self, player: Player) -> bool:
        """The learner asks for its next batch, or executes the one it has and publishes."""
        table = self.tables[player]
        if table.finished or player not in self.s.learns:
            return False
        if self.executing[player]:
            self.executing[player] = False
            self.step[player] += 1
            self.version[player] += 1
            if self.step[player] == self.s.steps:
                table.acknowledge(self.s.steps)
                table.finish()
            return True
        before = (table.unlearned, self.turn)
        table.ask(self.step[player], self.version[player])
        may_take = self.turn is None or self.turn.player == player
        outcome = table.lease(self.step[player], self.version[player], self.batch[player], may_take)
        if outcome.lease is None:
            return (table.unlearned, self.turn) != before  # asking alone says that the step before is executed
        assert all(0 <= s <= self.s.staleness for s in outcome.lease.staleness)
        assert not self.no_games[player] & {unit.game_id for unit in outcome.lease.units}
        if outcome.new:
            self.learned.append((player, self.step[player]))
            self.games[player] |= {unit.game_id for unit in outcome.lease.units}
        self.executing[player] = True
        return True

    def checkpoint(self) -> None:
        for p in self.s.learns:
            self.saved[p] = self.step[p]
            self.tables[p].acknowledge(self.step[p])

    def crash(self, player: Player) -> None:
        """The learner group starts again from its last checkpoint, and pushes what it has there as a new version."""
        table = self.tables[player]
        if player in self.s.learns and not table.finished:
            self.step[player], self.executing[player] = self.saved[player], False
            table.rewind(self.step[player])
            self.version[player] = table.version + 1

    def deliver(self) -> bool:
        moved = self.served != self.version
        self.served = dict(self.version)
        return moved

    def count(self) -> None:
        for t in self.tables.values():
            assert t.learned + t.evicted.total() + t.held == t.appended

    def play(self, moves: list[str]) -> None:
        """The moves, and then everybody does what they can until every learner took its last step."""
        act: dict[str, Callable[[], object]] = {
            "deal": self.deal,
            "end": lambda: self.end(useful=False),
            "attacker": lambda: self.learn("attacker"),
            "defender": lambda: self.learn("defender"),
            "deliver": self.deliver,
            "checkpoint": self.checkpoint,
            "crash attacker": lambda: self.crash("attacker"),
            "crash defender": lambda: self.crash("defender"),
        }
        for move in moves:
            act[move]()
            self.count()
        for _ in range(4000):
            if all(self.tables[p].finished for p in self.s.learns):
                break
            moved = [self.deliver(), self.deal(), self.end(useful=True), *(self.learn(p) for p in PLAYERS)]
            self.count()
            assert any(moved), "nobody can move: a deadlock"
        assert all(self.step[p] == self.s.steps for p in self.s.learns)


@settings(max_examples=300, deadline=None)
@given(setting=SETTINGS, moves=st.lists(st.sampled_from(MOVES), max_size=120), seed=st.integers(0, 2**16))
# The defender has executed its only step and the attacker is short of a game: room comes only of the defender's asking.
@example(setting=Setting(attacker=2), moves=["deal", "end", "defender", "defender", "deliver"], seed=1)
def test_no_schedule_deadlocks_or_learns_a_stale_row(setting: Setting, moves: list[str], seed: int) -> None:
    World(setting, random.Random(seed)).play(moves)


@settings(max_examples=100, deadline=None)
@given(
    setting=SETTINGS.map(lambda s: replace(s, learns=PLAYERS, every=s.every or 2)),
    moves=st.lists(st.sampled_from(["deal", "end", "attacker", "defender", "deliver", "checkpoint"]), max_size=120),
    seed=st.integers(0, 2**16),
)
def test_turns_come_in_order_whoever_is_faster(setting: Setting, moves: list[str], seed: int) -> None:
    world = World(setting, random.Random(seed))
    world.play(moves)
    every = setting.every or 1
    in_turns = sorted(
        ((p, k) for p in PLAYERS for k in range(setting.steps)), key=lambda x: (x[1] // every, x[0], x[1])
    )
    assert world.learned == in_turns
    assert not world.games["attacker"] & world.games["defender"], "a game is learned by the player on turn alone"


@settings(max_examples=50, deadline=None)
@given(setting=SETTINGS.map(lambda s: replace(s, learns=("defender",), every=None)), seed=st.integers(0, 2**16))
def test_a_frozen_players_rows_are_all_evicted_and_hold_nobody_up(setting: Setting, seed: int) -> None:
    world = World(setting, random.Random(seed))
    world.play([])
    frozen = world.tables["attacker"]
    assert frozen.evicted == {"frozen": frozen.appended} and frozen.appended > 0
    assert world.served["attacker"] == 0
