"""What a learner step costs in arithmetic, what a card can do, and what fits on it. Pure.

Model FLOPs, as in the PaLM paper's utilisation (arXiv 2204.02311, appendix B): what the step needs, whatever is computed twice to
save memory. A matrix product of n numbers costs 2 n a token; attention over T tokens 2 T^2 width a layer, as half of it is masked;
a backward pass twice its forward one, or once where no weight gradient is wanted.
"""

from collections.abc import Sequence

from tests.benchmarks.shapes import Shape

FULL_BYTES = (
    2 + 16 + 2 + 4
)  # a parameter: bf16, fp32 with its gradient and AdamW's two, the reference's bf16 and the average
LORA_BYTES = 2 + 2  # the frozen weights and the reference's; adapters are a hundredth of them
ROOM = 0.7  # of the card; the rest is for activations, logits and the allocator


def forward_flops(shape: Shape, lengths: Sequence[int], kept: int) -> float:
    """Of one forward pass over sequences of these lengths, of which so many tokens in all are projected on the vocabulary."""
    attention = 2.0 * shape.layers * shape.width * sum(n * n for n in lengths)
    return 2.0 * shape.body * sum(lengths) + attention + 2.0 * shape.head * kept


def step_flops(shape: Shape, lengths: Sequence[int], kept: int, full: bool) -> float:
    """Of a DPO step with a reference forward: `full` trains every parameter, else adapters of negligible size."""
    return forward_flops(shape, lengths, kept) * (4.0 if full else 3.0)


def trains_in_full(shape: Shape, card_bytes: int) -> bool | None:
    """Whether every parameter can be trained on one such card; False: adapters can; None: not even those."""
    if shape.parameters * FULL_BYTES <= ROOM * card_bytes:
        return True
    return False if shape.parameters * LORA_BYTES <= ROOM * card_bytes else None
