"""The life of a row: first in first out, the staleness bound, leases, and that every row is counted."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.replay.rules.leases import Row
from cluster.replay.rules.table import Table


def table(staleness: int = 2, capacity: int = 100) -> Table[str]:
    return Table(staleness, capacity)


def add(t: Table[str], game_id: int, version: int = 0, rows: int = 1, why: str | None = None) -> bool:
    return t.append(game_id, [Row(f"{game_id}/{k}", version, "place", why) for k in range(rows)], "harmful")


def ids(t: Table[str], step: int, version: int, games: int) -> list[str] | None:
    lease = t.lease(step, version, games).lease
    return None if lease is None else [row.row_id for row in lease.rows]


def test_a_step_gets_the_oldest_games_and_only_a_whole_batch() -> None:
    t = table()
    add(t, 1)
    assert ids(t, 0, 0, 2) is None
    add(t, 2, rows=2)
    add(t, 3)
    assert ids(t, 0, 0, 2) == ["1/0", "2/0", "2/1"]
    assert ids(t, 1, 1, 2) is None and t.free_games == 1


def test_a_slow_game_is_learned_before_those_that_were_dealt_after_it() -> None:
    t = table(staleness=1)
    for game_id in (2, 3, 4, 1):
        add(t, game_id, version=0 if game_id == 1 else 1)
    assert ids(t, 0, 1, 2) == ["1/0", "2/0"]
    assert ids(t, 1, 2, 2) == ["3/0", "4/0"]
    assert t.evicted == {}


def test_every_rank_gets_the_same_batch_whatever_came_meanwhile() -> None:
    t = table()
    for game_id in range(4):
        add(t, game_id)
    first = t.lease(0, 0, 2)
    add(t, 9)
    again = t.lease(0, 0, 2)
    assert first.new and not again.new and again.lease is first.lease
    with pytest.raises(ValueError, match="step 0 has a lease of 2 games; 1 were asked for"):
        t.lease(0, 0, 1)


def test_rows_beyond_the_bound_are_evicted_before_the_batch_is_taken() -> None:
    t = table(staleness=2)
    add(t, 1, version=0)
    add(t, 2, version=1)
    add(t, 3, version=3)
    outcome = t.lease(5, 3, 2)
    assert outcome.stale == (1,) and outcome.lease is not None
    assert outcome.lease.staleness == [2, 0]
    assert (t.max_learned, t.staleness_sum, t.evicted) == (2, 2, {"stale": 1})


def test_a_game_without_rows_to_learn_from_counts_as_a_game_of_its_step() -> None:
    t = table()
    add(t, 1, why="tie")
    add(t, 2, rows=0)
    assert ids(t, 0, 0, 2) == []
    assert (t.appended, t.evicted, t.held) == (1, {"tie": 1}, 0)


def test_a_game_ages_as_a_whole_by_its_oldest_row() -> None:
    t = table(staleness=0)
    t.append(1, [Row("1/0", 0, "p", "tie"), Row("1/1", 1, "p")], "harmful")
    add(t, 2, version=1)
    assert ids(t, 1, 1, 1) == ["2/0"]
    assert t.evicted == {"tie": 1, "stale": 1} and t.free_games == 0


def test_stale_games_that_teach_nothing_fill_no_batch() -> None:
    t = table(staleness=0)
    for game_id in range(4):
        add(t, game_id, version=0, why="tie" if game_id % 2 else None)
    for game_id in range(4, 8):
        add(t, game_id, version=1, why="tie" if game_id % 2 else None)
    outcome = t.lease(1, 1, 4)
    assert outcome.stale == (0, 1, 2, 3) and outcome.lease is not None
    assert [unit.game_id for unit in outcome.lease.units] == [4, 5, 6, 7]
    assert [row.row_id for row in outcome.lease.rows] == ["4/0", "6/0"]
    assert (t.appended, t.held, t.evicted) == (8, 2, {"tie": 4, "stale": 2})


def test_a_game_without_any_row_knows_no_version_and_does_not_age() -> None:
    t = table(staleness=0)
    add(t, 1, rows=0)
    outcome = t.lease(9, 9, 1)
    assert outcome.stale == () and outcome.lease is not None and outcome.lease.rows == []


def test_a_game_that_the_judge_failed_on_is_a_game_only_where_it_teaches() -> None:
    t = table()
    t.append(1, [Row("1/0", 0, "p", "no_pair"), Row("1/1", 0, "p", "tie")], "harmful", judge_failed=True)
    t.append(2, [], "harmful", judge_failed=True)
    assert (t.unlearned, t.evicted) == (0, {"judge_failed": 2})
    t.append(3, [Row("3/0", 0, "p", "no_pair"), Row("3/1", 0, "p")], "harmful", judge_failed=True)
    assert ids(t, 0, 0, 1) == ["3/1"] and t.evicted == {"judge_failed": 2, "no_pair": 1}


def test_a_known_game_is_not_appended_again() -> None:
    t = table()
    assert add(t, 1, rows=2) and not add(t, 1, rows=2)
    assert (t.appended, t.duplicates, t.free) == (2, 2, 2)


def test_rows_are_learned_when_a_checkpoint_contains_their_step() -> None:
    t = table()
    for game_id in range(6):
        add(t, game_id)
    for step in range(3):
        t.lease(step, step, 2)
    t.acknowledge(2)
    assert (t.learned, t.leased, t.held) == (4, 2, 2)
    with pytest.raises(ValueError, match="step 1 is learned for good"):
        t.lease(1, 3, 2)


def test_a_rewind_returns_rows_to_their_old_places() -> None:
    t = table(staleness=9)
    for game_id in range(6):
        add(t, game_id, version=game_id)
    for step in range(2):
        t.lease(step, step, 2)
    t.acknowledge(1)
    assert t.rewind(1) == 2
    assert ids(t, 1, 7, 3) == ["2/0", "3/0", "4/0"]
    assert t.version == 7


def test_the_step_being_executed_counts_until_the_next_one_is_asked_for() -> None:
    t = table()
    for game_id in range(3):
        add(t, game_id)
    t.lease(0, 0, 2)
    assert t.unlearned == 3
    t.lease(1, 1, 2)
    assert t.unlearned == 1


def test_the_oldest_games_go_when_the_capacity_is_reached() -> None:
    t = table(capacity=3)
    for game_id in range(2):
        add(t, game_id, rows=2)
    assert t.trim() == [0] and t.evicted == {"capacity": 2}
    assert t.free_games == 1


def test_after_the_last_step_nothing_waits_any_more() -> None:
    t = table()
    add(t, 1, rows=2)
    add(t, 2, rows=0)
    t.finish()
    add(t, 3)
    add(t, 4, why="tie")
    assert (t.free_games, t.held, t.unlearned, t.evicted) == (0, 0, 0, {"finished": 4})


class TableMachine(RuleBasedStateMachine):
    """Any order of anything: every row stays counted, and none is learned twice."""

    def __init__(self) -> None:
        super().__init__()
        self.t: Table[str] = Table(2, 12)
        self.games = self.step = self.version = 0
        self.got: dict[int, list[str]] = {}

    @rule(
        lags=st.lists(st.integers(0, 4), max_size=3),
        why=st.sampled_from([None, None, "tie", "no_pair"]),
        judge_failed=st.booleans(),
    )
    def finish_game(self, lags: list[int], why: str | None, judge_failed: bool) -> None:
        rows = [Row(f"{self.games}/{k}", max(0, self.version - lag), "p", why) for k, lag in enumerate(lags)]
        before = self.t.free_games
        self.t.append(self.games, rows, "harmful", judge_failed=judge_failed)
        if judge_failed and (why or not rows):
            assert self.t.free_games == before
        self.games += 1
        self.t.trim()

    @precondition(lambda self: self.games > 0)
    @rule(data=st.data())
    def finish_it_again(self, data: st.DataObject) -> None:
        assert not add(self.t, data.draw(st.integers(0, self.games - 1)))

    @rule(games=st.integers(1, 3))
    def take_a_step(self, games: int) -> None:
        lease = self.t.lease(self.step, self.version, games).lease
        if lease is not None:
            assert len(lease.units) == games and all(s <= 2 for s in lease.staleness)
            assert all(u.version is None or self.version - u.version <= 2 for u in lease.units)
            self.got[self.step] = [row.row_id for row in lease.rows]
            self.step += 1
            self.version += 1

    @rule(back=st.integers(0, 3))
    def checkpoint(self, back: int) -> None:
        self.t.acknowledge(max(0, self.step - back))

    @rule(back=st.integers(0, 3))
    def restart(self, back: int) -> None:
        self.step = max(self.t._leases.acknowledged, self.step - back)
        self.got = {s: rows for s, rows in self.got.items() if s < self.step}
        self.t.rewind(self.step)

    @rule()
    def end(self) -> None:
        self.t.finish()

    @invariant()
    def every_row_is_counted_once(self) -> None:
        t = self.t
        assert t.learned + t.evicted.total() + t.held == t.appended
        taken = [row_id for rows in self.got.values() for row_id in rows]
        assert len(taken) == len(set(taken)) == t.learned + t.leased


TestEveryRowIsCounted = TableMachine.TestCase
TestEveryRowIsCounted.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
