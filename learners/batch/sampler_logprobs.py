"""The log-probabilities that an item's tokens were drawn with, as a row holds them. Pure: numpy and pyarrow, no torch."""

from typing import Any

import numpy as np

from learners.batch.micro_batches import Floats
from protocol.errors import UserError


def read_sampler_logprobs(items: Any, index: int, row_id: str, reader: str) -> Floats:
    """One for each token of an item of `protocol.rows.SCHEMA`.

    Args:
        items: the row's items, a struct array.
        index: which of them.
        row_id: of the row, for the message.
        reader: the setting that needs them, for the message.

    Raises:
        UserError: they are missing, of another number than the tokens, or not finite.
    """
    logprobs = np.asarray(items.field("logprobs")[index].values, np.float32)
    tokens = len(items.field("token_ids")[index].values)
    if len(logprobs) != tokens or not np.isfinite(logprobs).all():
        raise UserError(
            f"replay row {row_id}: item {index} has {int(np.isfinite(logprobs).sum())} log-probabilities for {tokens} tokens, "
            f"{reader} needs one for each; choose another loss and reference, or start a new run"
        )
    return logprobs
