"""From replay rows to padded micro-batches, one rank's share at a time. Pure: numpy and pyarrow, no torch.

Invariants: every rank that reads the same table computes the same split, so nothing is exchanged; every rank gets the same
number of micro-batches, because each forward under ZeRO-3 is a collective; every pair is in exactly one micro-batch of exactly
one rank. A rank with nothing left gets a dummy pair of weight 0.

It does not know the loss: weights here only tell real pairs (1) from dummies (0).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from protocol.preferences import pick_pair
from protocol.types import Preference

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with its chosen and its rejected completion, as token ids."""

    prompt: Ids
    chosen: Ids
    rejected: Ids

    @property
    def width(self) -> int:
        """Tokens of the longer of its two sequences."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def tokens(self) -> int:
        """Tokens of both sequences, unpadded."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward: P chosen sequences, then their P rejected ones, right-padded with token 0.

    `completion_BT` marks completion tokens, `attention_BT` real tokens, `weight_P` real pairs (1) and dummies (0).
    `keep` is how many last positions of logits the completions need: the prompts' common part is not worth a vocabulary.
    """

    tokens_BT: Ids
    attention_BT: NDArray[np.bool_]
    completion_BT: NDArray[np.bool_]
    weight_P: NDArray[np.float32]
    keep: int


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One rank's micro-batches of a step, and what the whole batch holds over all ranks."""

    micro: tuple[MicroBatch, ...]
    rows: int
    pairs: int
    tokens: int


def _preferences(rows: Sequence[dict[str, object]]) -> list[Preference]:
    made = []
    for row in rows:
        swapped = None if row["swapped_i"] is None else (row["swapped_i"], row["swapped_j"])
        forward = (row["forward_i"], row["forward_j"])
        made.append(Preference(row["i"], row["j"], forward, swapped, row["winner"], row["agreed"]))  # type: ignore[arg-type]
    return made


def read_pairs(table: pa.Table) -> list[Pair]:
    """The pairs of a table of `protocol.rows.SCHEMA`, in row order; rows without a pair (ties, lone items) yield none.

    A rejected completion that is `too_long` is cut to the chosen one's length (GAME.md 4).
    """
    pairs = []
    prompts, items, preferences = (table.column(name) for name in ("prompt_ids", "items", "preferences"))
    for row in range(table.num_rows):
        group = items[row].values
        picked = pick_pair(group.field("reward").to_pylist(), _preferences(preferences[row].as_py()))
        if picked is None:
            continue
        token_ids = group.field("token_ids")
        chosen, rejected = (np.asarray(token_ids[k].values, dtype=np.int64) for k in picked)
        if group.field("state")[picked[1]].as_py() == "too_long":
            rejected = rejected[: len(chosen)]
        pairs.append(Pair(np.asarray(prompts[row].values, dtype=np.int64), chosen, rejected))
    return pairs


def split(widths: Sequence[int], ranks: int, max_tokens: int) -> list[list[list[int]]]:
    """Deals pairs to ranks, longest first to the least loaded, and packs each rank's into micro-batches.

    Args:
        widths: padded tokens of one sequence of each pair; a pair takes two.
        ranks: how many share the batch.
        max_tokens: padded tokens in one micro-batch. A pair that is alone above it still gets one of its own.

    Returns:
        For each rank its micro-batches as lists of indices into `widths`: the same number for every rank, at least one,
        padded with empty ones.
    """
    load = [0] * ranks
    packed: list[list[list[int]]] = [[] for _ in range(ranks)]
    for index in sorted(range(len(widths)), key=lambda k: (-widths[k], k)):
        rank = min(range(ranks), key=lambda r: (load[r], r))
        load[rank] += widths[index]
        # Descending widths: a micro-batch's first pair sets the width that all of its rows are padded to.
        last = packed[rank][-1] if packed[rank] else None
        if last is not None and 2 * (len(last) + 1) * widths[last[0]] <= max_tokens:
            last.append(index)
        else:
            packed[rank].append([index])
    forwards = max(1, *(len(micro) for micro in packed))
    return [micro + [[] for _ in range(forwards - len(micro))] for micro in packed]


def collate(pairs: Sequence[Pair]) -> MicroBatch:
    """Pads pairs into one micro-batch; no pairs make the dummy of weight 0."""
    weight = 1.0 if pairs else 0.0
    token = np.zeros(1, np.int64)
    real = pairs or [Pair(token, token, token)]
    sequences = [(p.prompt, p.chosen) for p in real] + [(p.prompt, p.rejected) for p in real]
    shape = (len(sequences), max(p.width for p in real))
    tokens, attention, completion = np.zeros(shape, np.int64), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for row, (prompt, answer) in enumerate(sequences):
        end = len(prompt) + len(answer)
        tokens[row, :end] = np.concatenate([prompt, answer])
        attention[row, :end] = True
        completion[row, len(prompt) : end] = True
    keep = (
        shape[1] - min(len(p.prompt) for p in real) + 1
    )  # the last prompt token's logits predict the first answer token
    return MicroBatch(tokens, attention, completion, np.full(len(real), weight, np.float32), keep)


def make_batch(table: pa.Table, rank: int, ranks: int, max_tokens: int) -> StepBatch:
    """This rank's share of a leased table, and the counts of the whole."""
    pairs = read_pairs(table)
    mine = split([p.width for p in pairs], ranks, max_tokens)[rank]
    micro = tuple(collate([pairs[k] for k in indices]) for indices in mine)
    return StepBatch(micro, table.num_rows, len(pairs), sum(p.tokens for p in pairs))
