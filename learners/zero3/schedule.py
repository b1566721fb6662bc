"""The learning rate as a function of the step. Pure; `engine` writes it into the optimizer's parameter groups."""

import math


def lr_at(
    step: int, *, lr: float, final_fraction: float, warmup_steps: int, steps: int, advances_per_step: int = 1
) -> float:
    """Linear warm-up to `lr`, then half a cosine down to `lr * final_fraction`, which the last step takes.

    Args:
        step: 0 for the first step; beyond the last step the rate stays where the cosine ended.
        lr: the peak.
        final_fraction: of `lr`, in [0, 1].
        warmup_steps: steps of the rise; the first of them already moves.
        steps: the whole horizon, warm-up included.
        advances_per_step: places of the schedule that one step takes. With 2 (`quirks.lr_schedule: paper`) the rise is half as
            long and the cosine ends half-way.
    """
    place = step * advances_per_step
    if place < warmup_steps:
        return lr * (place + 1) / warmup_steps
    progress = min(1.0, (place - warmup_steps) / max(1, steps - 1 - warmup_steps))
    return lr * (final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress)))
