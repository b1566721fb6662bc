"""From a leased table to one rank's share of a step's batch, as the recipe's loss wants it. Pure: numpy and pyarrow, no torch."""

import pyarrow as pa

from learners.batch.grpo import group_batch
from learners.batch.micro_batches import StepBatch
from learners.batch.pairs import pair_batch
from protocol.recipe import LearnerConfig, QuirksConfig


def make_batch(table: pa.Table, config: LearnerConfig, quirks: QuirksConfig, rank: int, ranks: int) -> StepBatch:
    """This rank's share of a leased table of `protocol.rows.SCHEMA`, and the counts of the whole."""
    if config.loss == "grpo":
        return group_batch(table, config, quirks, rank, ranks)
    return pair_batch(table, config, rank, ranks)
