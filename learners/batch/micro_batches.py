"""Padded micro-batches, and how sequences are assigned to ranks and to them. Pure: numpy, no torch.

Invariants: every rank that reads the same table computes the same split, so nothing is exchanged; every rank gets the same
number of micro-batches, because each forward under ZeRO-3 is a collective; every sequence is in exactly one micro-batch of exactly
one rank. A rank with nothing left gets dummies of weight 0.

Sequences stand side by side, sorted by length, and not behind each other in one row: block-diagonal attention is a dense T x T mask
for torch's own attention, which costs more than the padding that it saves; only flash-attention's or flex-attention's kernels skip
the blocks, and neither runs everywhere that this does. For the same reason a pair's common prompt is computed twice: once would
need a mask by which the rejected answer does not see the chosen one. How much padding that leaves is a metric of every step.

What the rows of a table mean for a loss is read in `pairs` and `grpo`, and demonstrations in `demonstrations`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# What a forward costs beside its tokens, as a share of a full one: gathering the weights, and starting some hundred kernels. About
# what both a 7B model on eight GPUs and the sandbox's on a CPU take; between a half and double of it a step's cost hardly moves.
_FORWARD_SHARE = 1 / 16

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
    """P chosen sequences, then their P rejected ones. `weight_P` is 1 for real pairs and 0 for dummies.

    `sampler_BK` holds the log-probabilities that the targets were drawn with, where they are what is compared with.
    """

    sequences: Sequences
    weight_P: Floats
    sampler_BK: Floats | None = None


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


def assign_micro_batches(widths: Sequence[int], rows: int, max_tokens: int, ranks: int) -> list[list[list[int]]]:
    """Deals entries to ranks and micro-batches so that a step takes the least time.

    The k-th forwards of all ranks wait for each other. So they share one stretch of the entries sorted by width, dealt out in turn:
    what a rank pads to, and how many entries it has, is then about the same on all of them. A stretch costs the padded tokens of
    its first rank, which has the most and the widest, and `_FORWARD_SHARE`; the cheapest cut into stretches is found exactly
    (dynamic programming: the best cut of the first j entries ends in a stretch i..j after the best cut of the first i).

    Args:
        widths: tokens of each entry's longest sequence.
        rows: sequences that an entry takes: 2 for a pair.
        max_tokens: padded tokens in one micro-batch. An entry that is alone above it still gets one of its own.
        ranks: how many there are.

    Returns:
        For each rank its micro-batches as lists of indices into `widths`, the widest first: the same number for every rank, at
        least one; an empty list is a dummy.
    """
    order = sorted(range(len(widths)), key=lambda k: (-widths[k], k))
    sorted_widths = np.array([widths[k] for k in order], np.int64)
    forward = max_tokens * _FORWARD_SHARE
    best, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, np.int64)
    for end in range(1, len(order) + 1):
        deep = -(-(end - np.arange(end)) // ranks)  # entries of the first rank in the stretch from each beginning
        tokens = rows * deep * sorted_widths[:end]
        total = np.where((tokens <= max_tokens) | (deep == 1), best[:end] + tokens + forward, np.inf)
        begins[end] = total.argmin()
        best[end] = total[begins[end]]
    stretches = []
    end = len(order)
    while end:
        stretches.append((int(begins[end]), end))
        end = int(begins[end])
    return [[order[begin + r : end : ranks] for begin, end in reversed(stretches)] or [[]] for r in range(ranks)]


def padding_share(packed: Sequence[Sequence[Sequence[int]]], widths: Sequence[int], rows: int, tokens: int) -> float:
    """The share of all ranks' tokens that is padding; dummies left out. `tokens` are the real ones."""
    padded = sum(rows * len(micro) * widths[micro[0]] for mine in packed for micro in mine if micro)
    return 1.0 - tokens / padded if padded else 0.0


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


def make_dummy(rows: int) -> Sequences:
    """One-token sequences without an answer, for a rank that only joins the collectives."""
    shape = (rows, 2)
    return Sequences(
        np.zeros(shape, np.int64), np.ones(shape, np.bool_), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    )


def place_at_predictions(values: Sequence[Floats], sequences: Sequences) -> Floats:
    """One value for each answer token of each sequence, in their order, to where the token is predicted (B, K); 0 elsewhere."""
    placed = np.zeros(sequences.mask_BK.shape, np.float32)
    placed[sequences.mask_BK] = np.concatenate([np.zeros(0, np.float32), *values])
    return placed
