"""The dealer: the same games from the same seed, equal share of the categories, and no game lost or played for nothing."""

from collections import Counter

import pytest

from cluster.replay.rules.dealer import Dealer
from protocol.errors import UserError
from protocol.types import Seed
from tests.unit.cluster.replay.rules.test_facts import SEEDS


def dealer(run_seed: int = 0, seeds: list[Seed] = SEEDS) -> Dealer:
    return Dealer(run_seed, seeds)


def test_the_seed_of_a_game_depends_on_the_run_seed_and_its_id_alone() -> None:
    one = [d.seed.id for d in dealer().deal("a", 40, 0.0)]
    assert one == [dealer().seed_of(game_id).id for game_id in range(40)]
    assert one != [d.seed.id for d in dealer(run_seed=1).deal("a", 40, 0.0)]


def test_the_categories_have_equal_share_and_an_epoch_has_every_seed_once() -> None:
    seeds = [d.seed for d in dealer().deal("a", 70, 0.0)]
    assert Counter(s.category for s in seeds) == {"harmful": 35, "benign": 35}
    harmful = [s.id for s in seeds if s.category == "harmful"]
    epochs = [harmful[at : at + 5] for at in range(0, 35, 5)]
    assert all(sorted(epoch) == ["h0", "h1", "h2", "h3", "h4"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_one_category_alone_is_dealt() -> None:
    only = [s for s in SEEDS if s.category == "benign"]
    assert {d.seed.category for d in dealer(seeds=only).deal("a", 20, 0.0)} == {"benign"}
    with pytest.raises(UserError, match=r"seeds.train: 0 seeds, at least 1 is needed"):
        dealer(seeds=[])


def test_games_of_a_dead_worker_are_dealt_again_before_new_ones() -> None:
    d = dealer()
    first = d.deal("a", 3, 0.0)
    d.deal("b", 2, 0.0)
    d.finish(1)
    assert d.take_back_from("a") == [0, 2]
    again = d.deal("b", 3, 0.0)
    assert [deal.game_id for deal in again] == [0, 2, 5]
    assert again[0].seed == first[0].seed
    assert (d.started, d.finished, d.open_games, d.redealt) == (6, 1, 5, 2)


def test_games_of_a_worker_that_came_back_as_another_are_dealt_again() -> None:
    d = dealer()
    d.deal("rollout-0@aa", 2, 0.0)
    d.deal("rollout-1@cc", 1, 0.0)
    assert d.take_back_earlier("rollout-0@aa") == []
    assert d.take_back_earlier("rollout-0@bb") == [0, 1]
    assert [deal.game_id for deal in d.deal("rollout-0@bb", 2, 0.0)] == [0, 1]


def test_games_that_take_too_long_are_dealt_again_and_the_first_record_counts() -> None:
    d = dealer()
    d.deal("a", 1, 0.0)
    assert d.take_back_overdue(10.0, 60.0) == [] and d.take_back_overdue(61.0, 60.0) == [0]
    d.deal("b", 1, 61.0)
    assert d.finish(0) and not d.finish(0)
    assert (d.finished, d.late, d.open_games) == (1, 1, 0)


def test_an_abandoned_game_is_final_and_counted_by_reason() -> None:
    d = dealer()
    d.deal("a", 3, 0.0)
    assert d.abandon("a", 0, "generation_deadline") and not d.abandon("a", 0, "again")
    assert not d.abandon("b", 1, "not its game")
    assert not d.finish(0)
    assert d.abandoned == {"generation_deadline": 1} and d.late == 1
    d.take_back_from("a")
    assert [deal.game_id for deal in d.deal("b", 3, 0.0)] == [1, 2, 3]


def test_after_a_restart_the_missing_games_come_first() -> None:
    d = dealer()
    d.recover(finished=[0, 1, 4, 6], abandoned={3: "stopped"})
    assert (d.started, d.finished, d.abandoned.total()) == (7, 4, 1)
    assert [deal.game_id for deal in d.deal("a", 4, 0.0)] == [2, 5, 7, 8]


def test_a_record_of_a_game_that_a_restart_forgot_is_taken() -> None:
    d = dealer()
    d.recover(finished=[0], abandoned={})
    assert d.finish(3)
    assert d.started == 4
    assert [deal.game_id for deal in d.deal("a", 3, 0.0)] == [1, 2, 4]
    d.take_back_from("a")
    assert d.finish(2)
    assert [deal.game_id for deal in d.deal("b", 2, 0.0)] == [1, 4]
