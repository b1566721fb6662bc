"""From replay rows to a batch of pairs: which two of a group, what is cut, and what a micro-batch says of them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from learners.batch.build import make_batch
from learners.batch.micro_batches import PairMicro
from learners.batch.pairs import pair_micro, read_pairs
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
    made = tuple(Item(Completion.of(prompt, ids, (-1.0,) * len(ids)), state, reward) for ids, state, reward in items)
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


def test_an_answer_that_the_context_cut_short_is_in_no_pair() -> None:
    (pair,) = read_pairs(table(group([1], [([8], "ok", 4.0), ([7] * 9, "no_room", None), ([9, 9], "malformed", -1.0)])))
    assert (pair.chosen.tolist(), pair.rejected.tolist()) == ([8], [9, 9])
    assert not read_pairs(table(group([1], [([8], "ok", 4.0), ([7] * 9, "no_room", None)])))


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


def table_drawn_with(*logprobs: Sequence[float]) -> pa.Table:
    """A row of a chosen and a rejected item, the second too long, with these log-probabilities."""
    items = []
    for ids, state, reward, values in (
        ((4, 5), "ok", 5.0, logprobs[0]),
        ((6, 7, 8), "too_long", -1.0, logprobs[1]),
    ):
        items.append(Item(Completion.of((1, 2), ids, values), state, reward))
    return table(Group(7, "defender", 1, "s", "benign", tuple(items), (), (), 0))


def test_pairs_carry_what_they_were_drawn_with_cut_as_they_are() -> None:
    rows = table_drawn_with([-0.5, -1.5], [-2.0, -3.0, -4.0])
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
    rows = table_drawn_with([-0.5, -1.5], values)
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
