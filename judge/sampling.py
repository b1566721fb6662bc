"""A judge's sampling, with a value for what the recipe leaves out of an endpoint's requests: budgets and limits count with it."""

from protocol.recipe import JudgeSamplingConfig
from protocol.types import Sampling

UNKNOWN_TOKENS = 8192  # the most that an answer is taken to have where no limit is sent; nothing holds the server to it


def fill_in(s: JudgeSamplingConfig) -> Sampling:
    """What is asked for. A null is what a server does by itself: the model's own distribution."""
    return Sampling(
        1.0 if s.temperature is None else s.temperature,
        1.0 if s.top_p is None else s.top_p,
        s.max_new_tokens or UNKNOWN_TOKENS,
        bool(s.seeded),
    )
