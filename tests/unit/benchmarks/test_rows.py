"""The made games are as large as real ones, and teach."""

from cluster.replay.rules.facts import read_facts
from protocol.rows import to_batch
from protocol.types import Deal
from tests.benchmarks.rows import ATTACKS, ROWS, record_of, stock_of
from tests.benchmarks.stubs import seeds


def test_a_game_has_a_row_for_the_attacks_and_one_for_the_responses_to_each_attack() -> None:
    (items,) = stock_of(tokens=50, games=1)
    record = record_of(Deal(7, seeds(1)[0]), items)
    assert [g.row_id for g in record.groups] == ["7/attacker/0", *(f"7/defender/{k}" for k in range(4))]
    assert len(record.groups) == ROWS == 1 + ATTACKS
    assert {len(g.items) for g in record.groups} == {ATTACKS}


def test_no_item_is_twice_in_a_game_and_each_has_its_tokens() -> None:
    stock = stock_of(tokens=50, games=2)
    items = [item for game in stock for item in game]
    assert len({id(item.completion.token_ids) for item in items}) == len(items) == 2 * ROWS * ATTACKS
    assert {len(c.token_ids) for c in (i.completion for i in items)} == {50}
    assert {len(c.logprobs) for c in (i.completion for i in items)} == {50}
    assert {len(c.text) for c in (i.completion for i in items)} == {200}


def test_every_row_can_be_learned_from() -> None:
    (items,) = stock_of(tokens=5, games=1)
    record = record_of(Deal(0, seeds(1)[0]), items)
    for player in ("attacker", "defender"):
        batch = to_batch([g for g in record.groups if g.player == player])
        assert [f.unlearnable for f in read_facts(batch, "grpo")] == [None] * batch.num_rows
