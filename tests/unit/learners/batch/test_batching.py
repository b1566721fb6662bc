"""Rows to micro-batches: the same split for everyone, every pair once, the same number of forwards on every rank."""

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.batch.batching import make_batch, pair_micro, read_pairs
from learners.batch.packing import PairMicro, collate, pack
from protocol.errors import UserError
from protocol.recipe import LearnerConfig, QuirksConfig
from protocol.rows import SCHEMA, to_batch
from protocol.types import Completion, Group, Item, Preference

CONFIG, QUIRKS = LearnerConfig(max_tokens=100), QuirksConfig()


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
@given(st.lists(st.integers(2, 400), max_size=40), st.integers(1, 5), st.integers(10, 2000), st.integers(1, 2))
def test_everything_is_in_one_micro_batch_and_all_ranks_run_as_many(
    widths: list[int], ranks: int, max_tokens: int, rows: int
) -> None:
    packed = pack(widths, rows, max_tokens, ranks)
    assert len(packed) == ranks
    assert len({len(micro) for micro in packed}) == 1 and packed[0]
    assert sorted(k for rank in packed for micro in rank for k in micro) == list(range(len(widths)))
    for micro in (micro for rank in packed for micro in rank if micro):
        assert len(micro) == 1 or rows * len(micro) * max(widths[k] for k in micro) <= max_tokens
    for together in zip(*packed, strict=True):  # forwards that wait for each other
        assert max(map(len, together)) - min(map(len, together)) <= 1
        ends = sorted(widths[k] for micro in together for k in micro)
        others = [w for k, w in enumerate(widths) if k not in {k for micro in together for k in micro}]
        assert not any(ends[0] < w < ends[-1] for w in others), "a stretch of the sorted lengths"
    assert packed == pack(list(widths), rows, max_tokens, ranks)


def longest_ranks_tokens(packed: list[list[list[int]]], widths: Sequence[int], rows: int) -> int:
    """Padded tokens of a step as the slowest rank of each forward has them."""
    return sum(
        max(rows * len(micro) * max((widths[k] for k in micro), default=0) for micro in together)
        for together in zip(*packed, strict=True)
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(1, 3), st.integers(20, 200))
def test_no_other_cut_of_the_sorted_lengths_costs_less(widths: list[int], ranks: int, max_tokens: int) -> None:
    order = sorted(widths, reverse=True)

    def cost(cuts: tuple[int, ...]) -> float:
        tokens = 0.0
        for begin, end in itertools.pairwise((0, *cuts, len(order))):
            deep = -(-(end - begin) // ranks)
            if deep > 1 and deep * order[begin] > max_tokens:
                return float("inf")
            tokens += deep * order[begin] + max_tokens / 16
        return tokens

    inner = range(1, len(order))
    cheapest = min(cost(cuts) for n in range(len(order)) for cuts in itertools.combinations(inner, n))
    packed = pack(widths, 1, max_tokens, ranks)
    found = longest_ranks_tokens(packed, widths, 1) + len(packed[0]) * max_tokens / 16
    assert found == pytest.approx(cheapest)


def test_a_long_tail_leaves_less_padding_than_the_fewest_forwards_would() -> None:
    draw = np.random.default_rng(0)
    widths = [int(w) for w in np.minimum(2300, 40 + 60 * draw.pareto(1.2, 64))]
    packed = pack(widths, 2, 16_384, 8)
    # Eight pairs on each rank, the fewest forwards: some ranks pad everything to the one long pair that they have.
    assert longest_ranks_tokens(packed, widths, 2) * 8 < 2.5 * 2 * sum(widths)
    assert len(packed[0]) <= 4


def test_the_share_of_padding_is_reported() -> None:
    pairs = table(
        group([1, 2, 3], [([4], "ok", 5.0), ([5, 6], "ok", 1.0)]),
        group([9], [([8, 7], "ok", 5.0), ([6], "ok", 1.0)]),
    )
    batch = make_batch(pairs, CONFIG, QUIRKS, 0, 1)
    assert (batch.tokens, batch.facts["padding"]) == (14, pytest.approx(1 - 14 / 20))  # four rows of five
    two = [make_batch(pairs, CONFIG, QUIRKS, rank, 2).facts["padding"] for rank in (0, 1)]
    assert two == [pytest.approx(1 - 14 / 16)] * 2  # two rows of five, two of three


# -- the sampler's log-probabilities


def drawn(*logprobs: Sequence[float]) -> pa.Table:
    """A row of a chosen and a rejected item, the second too long, with these log-probabilities."""
    items = []
    for ids, state, reward, values in (
        ((4, 5), "ok", 5.0, logprobs[0]),
        ((6, 7, 8), "too_long", -1.0, logprobs[1]),
    ):
        items.append(Item(Completion((1, 2), ids, tuple(values), "", "stop", 0, 0), state, reward))
    return table(Group(7, "defender", 1, "s", "benign", tuple(items), (), (), 0))


def test_pairs_carry_what_they_were_drawn_with_cut_as_they_are() -> None:
    rows = drawn([-0.5, -1.5], [-2.0, -3.0, -4.0])
    (pair,) = read_pairs(rows, sampled=True)
    assert pair.sampled is not None
    assert [part.tolist() for part in pair.sampled] == [[-0.5, -1.5], [-2, -3]]
    config = CONFIG.model_copy(update={"reference": "sampler"})
    (micro,) = make_batch(rows, config, QUIRKS, 0, 1).micro
    assert isinstance(micro, PairMicro) and micro.sampler_BK is not None
    assert micro.sequences.targets_BK.tolist() == [[4, 5, 0], [6, 7, 0]]
    assert micro.sampler_BK.tolist() == [[-0.5, -1.5, 0], [-2, -3, 0]]
    (dummy,) = make_batch(rows, config, QUIRKS, 1, 2).micro
    assert dummy.sampler_BK is not None and dummy.sampler_BK.shape == dummy.sequences.mask_BK.shape


@pytest.mark.parametrize("values", [[], [-2.0, -3.0], [-2.0, float("nan"), -3.0]])
def test_rows_without_log_probabilities_are_refused_by_who_needs_them(values: list[float]) -> None:
    rows = drawn([-0.5, -1.5], values)
    found = sum(value == value for value in values)
    for config, reader in (
        (LearnerConfig(reference="sampler"), "reference sampler"),
        (LearnerConfig(loss="grpo"), "loss grpo"),
    ):
        with pytest.raises(UserError) as refused:
            make_batch(rows, config, QUIRKS, 0, 1)
        said = (
            f"replay row 7/defender/1: item 1 has {found} log-probabilities for 3 tokens, {reader} needs one for each"
        )
        assert str(refused.value).startswith(said) and "\n" not in str(refused.value)
    assert make_batch(rows, CONFIG, QUIRKS, 0, 1).units == 1, "a model's own reference needs none"


def test_a_micro_batch_has_chosen_before_rejected_and_says_what_is_predicted_where() -> None:
    pairs = read_pairs(
        table(
            group([1, 2, 3], [([4], "ok", 5.0), ([5, 6], "ok", 1.0)]),
            group([9], [([8, 7], "ok", 5.0), ([6], "ok", 1.0)]),
        )
    )
    micro = pair_micro(pairs)
    assert micro.sequences.tokens_BT.tolist() == [[1, 2, 3, 4, 0], [9, 8, 7, 0, 0], [1, 2, 3, 5, 6], [9, 6, 0, 0, 0]]
    assert micro.sequences.attention_BT.sum(1).tolist() == [4, 3, 5, 2]
    # The shortest prompt ends at position 0, whose logits predict position 1: all five positions are kept.
    assert micro.sequences.targets_BK.tolist() == [[0, 0, 4, 0, 0], [8, 7, 0, 0, 0], [0, 0, 5, 6, 0], [6, 0, 0, 0, 0]]
    assert micro.sequences.mask_BK.tolist() == (micro.sequences.targets_BK > 0).tolist()
    assert micro.weight_P.tolist() == [1, 1]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5))
def test_every_answer_token_is_predicted_by_the_position_before_it(lengths: list[tuple[int, int]]) -> None:
    rows = [(np.arange(1, p + 1), np.arange(101, 101 + a)) for p, a in lengths]
    sequences = collate(rows)
    width, kept = sequences.tokens_BT.shape[1], sequences.targets_BK.shape[1]
    assert kept == width - min(p for p, _ in lengths) + 1
    for row, (prompt, answer) in enumerate(lengths):
        at = np.flatnonzero(sequences.mask_BK[row])
        positions = at + width - kept + 1
        assert positions.tolist() == list(range(prompt, prompt + answer))
        assert sequences.targets_BK[row, at].tolist() == sequences.tokens_BT[row, positions].tolist()


def test_a_rank_without_rows_joins_with_a_row_of_weight_zero() -> None:
    one = table(group([1, 2], [([3], "ok", 5.0), ([4], "ok", 1.0)]))
    first, second = (make_batch(one, CONFIG, QUIRKS, rank, 2) for rank in (0, 1))
    assert (first.units, second.units, first.items) == (1, 1, 2)
    assert [m.weight_P.tolist() for m in first.micro if isinstance(m, PairMicro)] == [[1.0]]
    assert [m.weight_P.tolist() for m in second.micro if isinstance(m, PairMicro)] == [[0.0]]
    assert second.micro[0].sequences.attention_BT.all() and not second.micro[0].sequences.mask_BK.any()
    assert second.tokens == first.tokens == 6


def test_an_empty_table_is_a_batch() -> None:
    batch = make_batch(SCHEMA.empty_table(), CONFIG, QUIRKS, 1, 2)
    assert (batch.rows, batch.units, batch.items, batch.tokens, len(batch.micro)) == (0, 0, 0, 0, 1)


def test_token_ids_are_what_torch_indexes_with() -> None:
    made = make_batch(table(group([1, 2], [([3], "ok", 5.0), ([4], "ok", 1.0)])), CONFIG, QUIRKS, 0, 1)
    for micro in (*made.micro, *make_batch(SCHEMA.empty_table(), CONFIG, QUIRKS, 0, 1).micro):
        assert micro.sequences.tokens_BT.dtype == micro.sequences.targets_BK.dtype == np.int64
