"""From replay rows to the batch of DPO and IPO: each row's chosen and rejected completion. Pure: numpy and pyarrow, no torch.

GRPO's batch of whole groups is in `grpo`. How a share is assigned to ranks and padded is in `micro_batches`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from learners.batch.micro_batches import (
    Floats,
    Ids,
    PairMicro,
    StepBatch,
    assign_micro_batches,
    collate,
    make_dummy,
    padding_share,
    place_at_predictions,
)
from learners.batch.sampler_logprobs import read_sampler_logprobs
from protocol.preferences import pick_pair
from protocol.recipe import LearnerConfig
from protocol.types import Preference


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with its chosen and its rejected completion, as token ids.

    `sampled` holds the log-probabilities that both were drawn with, a number for each token, if they were asked for.
    """

    prompt: Ids
    chosen: Ids
    rejected: Ids
    sampled: tuple[Floats, Floats] | None = None

    @property
    def width(self) -> int:
        """Tokens of the longer of its two sequences."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def answer_tokens(self) -> int:
        """Tokens of both completions."""
        return len(self.chosen) + len(self.rejected)


def _preferences(rows: Sequence[dict[str, object]]) -> list[Preference]:
    made = []
    for row in rows:
        swapped = None if row["swapped_i"] is None else (row["swapped_i"], row["swapped_j"])
        forward = (row["forward_i"], row["forward_j"])
        made.append(Preference(row["i"], row["j"], forward, swapped, row["winner"], row["agreed"]))  # type: ignore[arg-type]
    return made


def read_pairs(table: pa.Table, sampled: bool = False) -> list[Pair]:
    """The pairs of a table of `protocol.rows.SCHEMA`, in row order; rows without a pair (ties, lone items) yield none.

    A rejected completion that is `too_long` is cut to the chosen one's length (GAME.md 4), and its log-probabilities alike.
    One that the context cut short (`no_room`) has no reward, so it is in no pair.

    Args:
        table: the rows.
        sampled: whether the log-probabilities that the items were drawn with are wanted.

    Raises:
        UserError: they are wanted and a row does not have them.
    """
    pairs = []
    prompts, items, preferences, names = (
        table.column(name) for name in ("prompt_ids", "items", "preferences", "row_id")
    )
    for row in range(table.num_rows):
        group = items[row].values
        picked = pick_pair(group.field("reward").to_pylist(), _preferences(preferences[row].as_py()))
        if picked is None:
            continue
        token_ids = group.field("token_ids")
        chosen, rejected = (np.asarray(token_ids[k].values, dtype=np.int64) for k in picked)
        if group.field("state")[picked[1]].as_py() == "too_long":
            rejected = rejected[: len(chosen)]
        drawn = None
        if sampled:
            name = names[row].as_py()
            best, worst = (read_sampler_logprobs(group, k, name, "reference sampler") for k in picked)
            drawn = best, worst[: len(rejected)]
        pairs.append(Pair(np.asarray(prompts[row].values, dtype=np.int64), chosen, rejected, drawn))
    return pairs


def pair_micro(pairs: Sequence[Pair]) -> PairMicro:
    """Pads pairs into one micro-batch; no pairs make a dummy."""
    if not pairs:
        sequences = make_dummy(2)
        return PairMicro(sequences, np.zeros(1, np.float32), place_at_predictions([], sequences))
    sequences = collate([(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs])
    drawn = [p.sampled for p in pairs if p.sampled is not None]
    values = (
        place_at_predictions([best for best, _ in drawn] + [worst for _, worst in drawn], sequences) if drawn else None
    )
    return PairMicro(sequences, np.ones(len(pairs), np.float32), values)


def pair_batch(table: pa.Table, config: LearnerConfig, rank: int, ranks: int) -> StepBatch:
    """This rank's share of a leased table, and the counts of the whole. Its fact is the share of padding."""
    pairs = read_pairs(table, config.reference == "sampler")
    widths = [p.width for p in pairs]
    packed = assign_micro_batches(widths, 2, config.max_tokens, ranks)
    answer_tokens = sum(p.answer_tokens for p in pairs)
    tokens = answer_tokens + sum(2 * len(p.prompt) for p in pairs)
    return StepBatch(
        micro=tuple(pair_micro([pairs[k] for k in indices]) for indices in packed[rank]),
        rows=table.num_rows,
        units=len(pairs),
        items=2 * len(pairs),
        answer_tokens=answer_tokens,
        tokens=tokens,
        facts={"padding": padding_share(packed, widths, 2, tokens)},
    )
