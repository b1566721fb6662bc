"""The recipe's section about the replay buffer."""

from typing import Annotated, Literal

from pydantic import Field

from protocol.recipe.sections import NonNegative, Positive, Section

Order = Literal["fifo", "uniform", "freshest"]  # first dealt first | at random | newest versions first


class ReplayConfig(Section):
    """The replay buffer. Staleness counts policy versions between sampling and learning."""

    max_staleness: Annotated[int, Field(ge=0)] = 4
    capacity_rows: Positive = 100_000  # for each table
    sampler: Order = "fifo"  # which of the waiting games a step gets
    remover: Order = "fifo"  # which of them are evicted first beyond the capacity
    balanced: bool = True  # a step gets equal shares of both categories where both wait; the paper: 32 of each
    fsync_s: NonNegative = 0.5  # group commit: rows wait at most this long for their fsync
