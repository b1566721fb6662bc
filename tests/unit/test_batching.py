"""Rows to micro-batches: the same split for everyone, every pair once, the same number of forwards on every rank."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.batching import collate, make_batch, read_pairs, split
from protocol.rows import SCHEMA, to_batch
from protocol.types import Completion, Group, Item, Preference


def group(
    prompt: Sequence[int],
    items: Sequence[tuple[Sequence[int], str, float | None]],
    preferences: Sequence[Preference] = (),
) -> Group:
    made = tuple(
        Item(Completion(tuple(prompt), tuple(ids), (-1.0,) * len(ids), "", "stop", 0, 0), state, reward)
        for ids, state, reward in items
    )
    return Group(1, "defender", 0, "s", "benign", made, tuple(preferences), (), 0)


def table(*groups: Group) -> pa.Table:
    return pa.Table.from_batches([to_batch(groups)], schema=SCHEMA)


def test_a_pair_is_the_best_and_the_worst() -> None:
    (pair,) = read_pairs(table(group([1, 2], [([3], "ok", 4.0), ([4, 5], "ok", 9.0), ([6], "judge_failed", None)])))
    assert (pair.prompt.tolist(), pair.chosen.tolist(), pair.rejected.tolist()) == ([1, 2], [4, 5], [3])


def test_a_rejected_answer_that_did_not_stop_is_cut_to_the_chosen_ones_length() -> None:
    long, short = [7] * 9, [8, 9]
    (pair,) = read_pairs(table(group([1], [(short, "ok", 4.0), (long, "too_long", -1.0)])))
    assert pair.rejected.tolist() == [7, 7]
    (whole,) = read_pairs(table(group([1], [(short, "ok", 4.0), (long, "malformed", -1.0)])))
    assert whole.rejected.tolist() == long


def test_ties_and_lone_items_make_no_pair() -> None:
    disagreed = Preference(0, 1, (5.0, 6.0), (7.0, 5.0), None, False)
    tied = group([1], [([2], "ok", 6.0), ([3], "ok", 5.5)], [disagreed])
    lone = group([1], [([2], "ok", 6.0)])
    equal = group([1], [([2], "ok", 6.0), ([3], "ok", 6.0)])
    one_order = group([1], [([2], "ok", 6.0), ([3], "ok", 5.0)], [Preference(0, 1, (6.0, 5.0), None, 0, True)])
    assert len(read_pairs(table(tied, lone, equal, one_order))) == 1


def test_a_slice_of_a_larger_table_reads_its_own_rows() -> None:
    rows = [group([k], [([k, k], "ok", 1.0), ([k + 50], "ok", 2.0)]) for k in range(1, 6)]
    pairs = read_pairs(table(*rows).slice(2, 2))
    assert [(p.prompt.tolist(), p.rejected.tolist()) for p in pairs] == [([3], [3, 3]), ([4], [4, 4])]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(2, 400), max_size=40), st.integers(1, 5), st.integers(10, 2000))
def test_every_pair_is_in_one_micro_batch_and_all_ranks_run_as_many(
    widths: list[int], ranks: int, max_tokens: int
) -> None:
    dealt = split(widths, ranks, max_tokens)
    assert len(dealt) == ranks
    assert len({len(micro) for micro in dealt}) == 1 and dealt[0]
    assert sorted(k for rank in dealt for micro in rank for k in micro) == list(range(len(widths)))
    for micro in (micro for rank in dealt for micro in rank if micro):
        assert len(micro) == 1 or 2 * len(micro) * max(widths[k] for k in micro) <= max_tokens
    loads = [sum(widths[k] for micro in rank for k in micro) for rank in dealt]
    assert max(loads) - min(loads) <= max(widths, default=0), "balanced to within one pair"
    assert dealt == split(list(widths), ranks, max_tokens)


def test_collate_puts_chosen_before_rejected_and_marks_what_counts() -> None:
    pairs = read_pairs(
        table(
            group([1, 2, 3], [([4], "ok", 5.0), ([5, 6], "ok", 1.0)]),
            group([9], [([8, 7], "ok", 5.0), ([6], "ok", 1.0)]),
        )
    )
    micro = collate(pairs)
    assert micro.tokens_BT.tolist() == [[1, 2, 3, 4, 0], [9, 8, 7, 0, 0], [1, 2, 3, 5, 6], [9, 6, 0, 0, 0]]
    assert micro.completion_BT.astype(int).tolist() == [
        [0, 0, 0, 1, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 1, 0, 0, 0],
    ]
    assert micro.attention_BT.sum(1).tolist() == [4, 3, 5, 2]
    assert micro.weight_P.tolist() == [1, 1]
    assert micro.keep == 5, "the shortest prompt ends at position 0, whose logits predict position 1"


def test_a_rank_without_rows_joins_with_a_row_of_weight_zero() -> None:
    one = table(group([1, 2], [([3], "ok", 5.0), ([4], "ok", 1.0)]))
    first, second = (make_batch(one, rank, 2, 100) for rank in (0, 1))
    assert (first.pairs, second.pairs) == (1, 1)
    assert [m.weight_P.tolist() for m in first.micro] == [[1.0]]
    assert [m.weight_P.tolist() for m in second.micro] == [[0.0]]
    assert second.micro[0].attention_BT.all() and second.tokens == first.tokens == 6


def test_an_empty_table_is_a_batch() -> None:
    batch = make_batch(SCHEMA.empty_table(), 1, 2, 100)
    assert (batch.rows, batch.pairs, batch.tokens, len(batch.micro)) == (0, 0, 0, 1)


@pytest.mark.parametrize("dtype", [np.int64])
def test_token_ids_are_what_torch_indexes_with(dtype: type) -> None:
    assert make_batch(SCHEMA.empty_table(), 0, 1, 8).micro[0].tokens_BT.dtype == dtype
