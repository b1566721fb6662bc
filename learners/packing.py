"""Padded micro-batches, and how sequences are dealt to ranks and packed into them. Pure: numpy, no torch.

Invariants: every rank that reads the same table computes the same split, so nothing is exchanged; every rank gets the same
number of micro-batches, because each forward under ZeRO-3 is a collective; every sequence is in exactly one micro-batch of exactly
one rank. A rank with nothing left gets dummies of weight 0.

What the rows of a table mean for a loss is read in `batching` (pairs) and `groups`, and demonstrations in `sft`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sequences:
    """One forward: B sequences, right-padded with token 0.

    `attention_BT` marks real tokens. Only the last K positions of the logits are worth computing, for the prompts' common part
    predicts nothing that counts: `targets_BK` says what each of them should predict, `mask_BK` where that is an answer's token.
    """

    tokens_BT: Ids
    attention_BT: NDArray[np.bool_]
    targets_BK: Ids
    mask_BK: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PairMicro:
    """P chosen sequences, then their P rejected ones. `weight_P` is 1 for real pairs and 0 for dummies."""

    sequences: Sequences
    weight_P: Floats


@dataclass(frozen=True, slots=True)
class ItemMicro:
    """Items of groups, each on its own. `weight_B` is 1 / (rewarded items of its group), 0 for dummies.

    `sampler_BK` holds the log-probabilities that the targets were drawn with.
    """

    sequences: Sequences
    weight_B: Floats
    advantage_B: Floats
    sampler_BK: Floats


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One rank's micro-batches of a step, and what the whole batch holds over all ranks.

    `units` are what the loss is a mean over: pairs, or groups. `items` are the sequences that get a gradient and `answer_tokens`
    theirs, prompts left out; `tokens` counts prompts too, unpadded. `facts` are metrics that need no model.
    """

    micro: tuple[PairMicro | ItemMicro, ...]
    rows: int
    units: int
    items: int
    answer_tokens: int
    tokens: int
    facts: dict[str, float] = field(default_factory=dict)


def deal(loads: Sequence[int], ranks: int) -> list[list[int]]:
    """For each rank the indices into `loads` that are its share: largest first, each to the least loaded."""
    carried = [0] * ranks
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for index in sorted(range(len(loads)), key=lambda k: (-loads[k], k)):
        rank = min(range(ranks), key=lambda r: (carried[r], r))
        carried[rank] += loads[index]
        dealt[rank].append(index)
    return dealt


def pack(shares: Sequence[Sequence[int]], widths: Sequence[int], rows: int, max_tokens: int) -> list[list[list[int]]]:
    """Packs each rank's share into micro-batches.

    Args:
        shares: for each rank indices into `widths`.
        widths: tokens of each entry's longest sequence.
        rows: sequences that an entry takes: 2 for a pair.
        max_tokens: padded tokens in one micro-batch. An entry that is alone above it still gets one of its own.

    Returns:
        For each rank its micro-batches as lists of indices: the same number for every rank, at least one, padded with empty ones.
    """
    packed: list[list[list[int]]] = []
    for share in shares:
        mine: list[list[int]] = []
        for index in sorted(share, key=lambda k: (-widths[k], k)):
            # Descending widths: a micro-batch's first entry sets the width that all of its rows are padded to.
            if mine and rows * (len(mine[-1]) + 1) * widths[mine[-1][0]] <= max_tokens:
                mine[-1].append(index)
            else:
                mine.append([index])
        packed.append(mine)
    forwards = max(1, *(len(mine) for mine in packed))
    return [mine + [[] for _ in range(forwards - len(mine))] for mine in packed]


def collate(rows: Sequence[tuple[Ids, Ids]]) -> Sequences:
    """Pads (prompt, answer) sequences into one forward. Both have at least one token."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    common = min(len(prompt) for prompt, _ in rows)
    tokens, attention = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.bool_)
    kept = (len(rows), width - common + 1)  # the last prompt token's logits predict the first answer token
    targets, mask = np.zeros(kept, np.int64), np.zeros(kept, np.bool_)
    for row, (prompt, answer) in enumerate(rows):
        whole = np.concatenate([prompt, answer])
        tokens[row, : len(whole)] = whole
        attention[row, : len(whole)] = True
        at = slice(len(prompt) - common, len(whole) - common)
        targets[row, at] = answer
        mask[row, at] = True
    return Sequences(tokens, attention, targets, mask)


def dummy(rows: int) -> Sequences:
    """One-token sequences without an answer, for a rank that only joins the collectives."""
    shape = (rows, 2)
    return Sequences(
        np.zeros(shape, np.int64), np.ones(shape, np.bool_), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    )
