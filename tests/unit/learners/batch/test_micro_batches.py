"""Sequences to micro-batches: the same split for everyone, each once, the same number of forwards on every rank."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.batch.micro_batches import assign_micro_batches, collate


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(2, 400), max_size=40), st.integers(1, 5), st.integers(10, 2000), st.integers(1, 2))
def test_everything_is_in_one_micro_batch_and_all_ranks_run_as_many(
    widths: list[int], ranks: int, max_tokens: int, rows: int
) -> None:
    packed = assign_micro_batches(widths, rows, max_tokens, ranks)
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
    assert packed == assign_micro_batches(list(widths), rows, max_tokens, ranks)


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
    packed = assign_micro_batches(widths, 1, max_tokens, ranks)
    found = longest_ranks_tokens(packed, widths, 1) + len(packed[0]) * max_tokens / 16
    assert found == pytest.approx(cheapest)


def test_a_long_tail_leaves_less_padding_than_the_fewest_forwards_would() -> None:
    draw = np.random.default_rng(0)
    widths = [int(w) for w in np.minimum(2300, 40 + 60 * draw.pareto(1.2, 64))]
    packed = assign_micro_batches(widths, 2, 16_384, 8)
    # Eight pairs on each rank, the fewest forwards: some ranks pad everything to the one long pair that they have.
    assert longest_ranks_tokens(packed, widths, 2) * 8 < 2.5 * 2 * sum(widths)
    assert len(packed[0]) <= 4


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
