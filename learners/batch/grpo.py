"""From replay rows to GRPO's batch: rewards to advantages, whole groups to ranks (GAME.md 4). Pure: numpy and pyarrow, no torch.

Invariants: an item without a reward is in no mean, no denominator and no micro-batch; every rank computes every item's advantage
alike, so nothing is exchanged, and where an item is computed has no part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from learners.batch.micro_batches import (
    Floats,
    Ids,
    ItemMicro,
    StepBatch,
    assign_micro_batches,
    collate,
    make_dummy,
    padding_share,
    place_at_predictions,
)
from learners.batch.sampler_logprobs import read_sampler_logprobs
from protocol.recipe import LearnerConfig, QuirksConfig
from protocol.states import PENALTY

Rewards = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RewardedItem:
    """A completion with its reward. `sampler` has the answer's length: the log-probabilities that it was drawn with."""

    prompt: Ids
    answer: Ids
    sampler: Floats
    reward: float


@dataclass(frozen=True, slots=True)
class _LearnedItem:
    """An item that gets a gradient: its advantage, and its share of its group's mean."""

    item: RewardedItem
    advantage: float
    weight: float

    @property
    def width(self) -> int:
        return len(self.item.prompt) + len(self.item.answer)


def read_groups(table: pa.Table) -> list[list[RewardedItem]]:
    """The rewarded items of each row of `protocol.rows.SCHEMA`, in row order; rows without any yield nothing."""
    groups = []
    prompts, items, names = (table.column(name) for name in ("prompt_ids", "items", "row_id"))
    for row in range(table.num_rows):
        prompt = np.asarray(prompts[row].values, dtype=np.int64)
        group = items[row].values
        answers = group.field("token_ids")
        read = [
            RewardedItem(
                prompt,
                np.asarray(answers[k].values, np.int64),
                read_sampler_logprobs(group, k, names[row].as_py(), "loss grpo"),
                reward,
            )
            for k, reward in enumerate(group.field("reward").to_pylist())
            if reward is not None
        ]
        if read:
            groups.append(read)
    return groups


def assign_by_load(loads: Sequence[int], ranks: int) -> list[list[int]]:
    """For each rank the indices into `loads` that are its share: largest first, each to the least loaded."""
    carried = [0] * ranks
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for index in sorted(range(len(loads)), key=lambda k: (-loads[k], k)):
        rank = min(range(ranks), key=lambda r: (carried[r], r))
        carried[rank] += loads[index]
        dealt[rank].append(index)
    return dealt


def compute_advantages(
    rewards: Sequence[Rewards], shares: Sequence[Sequence[int]], config: LearnerConfig, quirks: QuirksConfig
) -> list[Rewards]:
    """Reward less baseline for each item of each group; no standard deviation.

    The baseline is the mean reward of the item's group (`seed`), of the whole batch (`batch`), or, where `seed` meets
    `quirks.grpo_baseline: paper`, of everything on the rank.

    Args:
        rewards: for each group the rewards of its rewarded items, at least one.
        shares: for each rank the groups that it would have: the reference implementation draws them where it learns them.
    """
    if config.baseline == "batch":
        together = [list(range(len(rewards)))]
    elif quirks.grpo_baseline == "paper":
        together = [list(share) for share in shares]
    else:
        together = [[k] for k in range(len(rewards))]
    baselines = {k: float(np.concatenate([rewards[j] for j in block]).mean()) for block in together for k in block}
    return [own - baselines[k] for k, own in enumerate(rewards)]


def _item_micro(learned: Sequence[_LearnedItem]) -> ItemMicro:
    """Pads items into one micro-batch; no items make a dummy."""
    if not learned:
        sequences = make_dummy(1)
        zero = np.zeros(1, np.float32)
        return ItemMicro(sequences, zero, zero, place_at_predictions([], sequences))
    sequences = collate([(one.item.prompt, one.item.answer) for one in learned])
    weight, advantage = (
        np.array([getattr(one, name) for one in learned], np.float32) for name in ("weight", "advantage")
    )
    return ItemMicro(
        sequences, weight, advantage, place_at_predictions([one.item.sampler for one in learned], sequences)
    )


def group_batch(table: pa.Table, config: LearnerConfig, quirks: QuirksConfig, rank: int, ranks: int) -> StepBatch:
    """This rank's share of a leased table, and the counts of the whole.

    With `quirks.grpo_penalised: paper` items at -1 are in the means and denominators and get no gradient.
    Its facts are the mean reward and the standard deviation of the advantage, over all rewarded items, and the share of padding.
    """
    groups = read_groups(table)
    kept = [[quirks.grpo_penalised == "default" or item.reward != PENALTY for item in group] for group in groups]
    loads = [
        sum(len(i.prompt) + len(i.answer) for i, learns in zip(group, flags, strict=True) if learns)
        for group, flags in zip(groups, kept, strict=True)
    ]
    rewards = [np.array([item.reward for item in group]) for group in groups]
    relative = compute_advantages(rewards, assign_by_load(loads, ranks), config, quirks)
    learned = [
        _LearnedItem(item, float(advantage), 1.0 / len(group))
        for k, group in enumerate(groups)
        for item, advantage, learns in zip(group, relative[k], kept[k], strict=True)
        if learns
    ]
    widths = [one.width for one in learned]
    packed = assign_micro_batches(widths, 1, config.max_tokens, ranks)
    answer_tokens, tokens = sum(len(one.item.answer) for one in learned), sum(widths)
    return StepBatch(
        micro=tuple(_item_micro([learned[k] for k in indices]) for indices in packed[rank]),
        rows=table.num_rows,
        units=len(groups),
        items=len(learned),
        answer_tokens=answer_tokens,
        tokens=tokens,
        facts={
            "reward_mean": float(np.concatenate(rewards).mean()) if groups else 0.0,
            "advantage_std": float(np.concatenate(relative).std()) if groups else 0.0,
            "padding": padding_share(packed, widths, 1, tokens),
        },
    )
