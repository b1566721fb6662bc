"""From replay rows to GRPO's batch: rewards to advantages, whole groups to ranks (GAME.md 4). Pure: numpy and pyarrow, no torch.

Invariants: an item without a reward is in no mean, no denominator and no micro-batch; a group is on one rank, though perhaps in
several of its micro-batches; every rank computes every rank's advantages alike, so nothing is exchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from learners.packing import Floats, Ids, ItemMicro, StepBatch, collate, deal, dummy, pack
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
class _Learned:
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
    prompts, items = table.column("prompt_ids"), table.column("items")
    for row in range(table.num_rows):
        prompt = np.asarray(prompts[row].values, dtype=np.int64)
        group = items[row].values
        answers, sampler = group.field("token_ids"), group.field("logprobs")
        read = [
            RewardedItem(
                prompt, np.asarray(answers[k].values, np.int64), np.asarray(sampler[k].values, np.float32), reward
            )
            for k, reward in enumerate(group.field("reward").to_pylist())
            if reward is not None
        ]
        if read:
            groups.append(read)
    return groups


def advantages(
    rewards: Sequence[Rewards], shares: Sequence[Sequence[int]], config: LearnerConfig, quirks: QuirksConfig
) -> list[Rewards]:
    """Reward less baseline for each item of each group; no standard deviation.

    The baseline is the mean reward of the item's group (`seed`), of the whole batch (`batch`), or, where `seed` meets
    `quirks.grpo_baseline: paper`, of everything on the rank.

    Args:
        rewards: for each group the rewards of its rewarded items, at least one.
        shares: for each rank the groups that it has.
    """
    if config.baseline == "batch":
        together = [list(range(len(rewards)))]
    elif quirks.grpo_baseline == "paper":
        together = [list(share) for share in shares]
    else:
        together = [[k] for k in range(len(rewards))]
    baselines = {k: float(np.concatenate([rewards[j] for j in block]).mean()) for block in together for k in block}
    return [own - baselines[k] for k, own in enumerate(rewards)]


def _item_micro(learned: Sequence[_Learned]) -> ItemMicro:
    """Pads items into one micro-batch; no items make a dummy."""
    if not learned:
        sequences = dummy(1)
        zero = np.zeros(1, np.float32)
        return ItemMicro(sequences, zero, zero, np.zeros(sequences.mask_BK.shape, np.float32))
    sequences = collate([(one.item.prompt, one.item.answer) for one in learned])
    sampler = np.zeros(sequences.mask_BK.shape, np.float32)
    sampler[sequences.mask_BK] = np.concatenate([one.item.sampler for one in learned])
    weight, advantage = (
        np.array([getattr(one, name) for one in learned], np.float32) for name in ("weight", "advantage")
    )
    return ItemMicro(sequences, weight, advantage, sampler)


def group_batch(table: pa.Table, config: LearnerConfig, quirks: QuirksConfig, rank: int, ranks: int) -> StepBatch:
    """This rank's share of a leased table, and the counts of the whole.

    With `quirks.grpo_penalised: paper` items at -1 are in the means and denominators and get no gradient.
    Its facts are the mean reward and the standard deviation of the advantage, over all rewarded items.
    """
    groups = read_groups(table)
    kept = [[quirks.grpo_penalised == "default" or item.reward != PENALTY for item in group] for group in groups]
    loads = [
        sum(len(i.prompt) + len(i.answer) for i, learns in zip(group, flags, strict=True) if learns)
        for group, flags in zip(groups, kept, strict=True)
    ]
    shares = deal(loads, ranks)
    rewards = [np.array([item.reward for item in group]) for group in groups]
    relative = advantages(rewards, shares, config, quirks)
    learned: list[_Learned] = []
    places: list[list[int]] = [[] for _ in groups]  # of each group's items in `learned`
    for k, group in enumerate(groups):
        for item, advantage, learns in zip(group, relative[k], kept[k], strict=True):
            if learns:
                places[k].append(len(learned))
                learned.append(_Learned(item, float(advantage), 1.0 / len(group)))
    items_of = [[place for k in share for place in places[k]] for share in shares]
    mine = pack(items_of, [one.width for one in learned], 1, config.max_tokens)[rank]
    answer_tokens = sum(len(one.item.answer) for one in learned)
    return StepBatch(
        micro=tuple(_item_micro([learned[k] for k in indices]) for indices in mine),
        rows=table.num_rows,
        units=len(groups),
        items=len(learned),
        answer_tokens=answer_tokens,
        tokens=answer_tokens + sum(len(one.item.prompt) for one in learned),
        facts={
            "reward_mean": float(np.concatenate(rewards).mean()) if groups else 0.0,
            "advantage_std": float(np.concatenate(relative).std()) if groups else 0.0,
        },
    )
