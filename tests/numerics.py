"""What the tests of floating-point results share: the setting they run under, and what rounding alone can do.

The bounds follow from the number format and from the size of a step, not from what one machine gave: other kernels, other numbers
of threads and other orders of summation must stay inside, and a wrong step must not.
"""

import os
from collections.abc import Sequence
from typing import Any

ROUNDING = 2.0**-24  # float32: rounding changes a number by at most this part of it
LOGP = 2.0**-19  # of a token's log-probability: numbers of up to 16, rounded a few times
TOKENS = 20  # an answer of the tests' batches has fewer
GAP = 4 * TOKENS * LOGP  # of a pair's gap: two answers, each under the policy and under its reference
# Of a GRPO loss: a token has an advantage times a ratio of up to 8, and its log-probability counts in itself and through its ratio.
GRPO_LOSS = TOKENS * 8 * 2 * LOGP


def threads() -> int:
    """How many threads torch is to use: `ADVGAME_TEST_THREADS`, or one."""
    return int(os.environ.get("ADVGAME_TEST_THREADS", "1"))


def weights_apart(rates: Sequence[float], norm: float, epsilon: float) -> float:
    """How far one weight, or its average, can come apart in two float32 runs of the same steps.

    Weights are of size 1 at most; a step rounds the decayed weight, the new one and, twice, the average. A gradient's element is
    a sum whose rounding is below that of the gradient's whole norm; Adam turns it into a change of at most rate / epsilon times as
    much.

    Args:
        rates: each step's learning rate.
        norm: the largest of the gradients' norms.
        epsilon: Adam's.
    """
    return ROUNDING * sum(4 + rate * norm / epsilon for rate in rates)


def steady_engine(model: str, config: Any, steps: int, quirks: Any, epsilon: float) -> Any:
    """A `ZeroEngine` with another epsilon for Adam than torch's 1e-8.

    A gradient that is itself as small as epsilon is mostly rounding, and Adam makes half a step of it, in whatever direction. So
    two right runs part by a whole learning rate wherever that happens. With an epsilon well above the gradients' rounding a step
    depends on the gradient continuously, and `weights_apart` bounds the difference.
    """
    from learners.zero3.engine import ZeroEngine

    engine = ZeroEngine(model, config, steps, 0, quirks)
    for group in engine._policy.optimizer.param_groups:
        assert group["eps"] == 1e-8, "what a run learns with is torch's own"
        group["eps"] = epsilon
    return engine
