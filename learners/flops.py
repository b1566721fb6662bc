"""What a learner step needs in arithmetic and what a card can do, for the utilisation of GPUs. Pure but for the card's name.

Model FLOPs, as in the PaLM paper's utilisation (arXiv 2204.02311, appendix B): what the step needs, whatever is computed twice to
save memory. Attention over the sequence is left out: at 2,048 tokens it is a few hundredths of a 7B model's products.
"""

# Dense bfloat16, FLOP/s, from the makers' data sheets. Of two names that a card's contains, the longer counts.
PEAK = {
    "A100": 312e12,
    "L40S": 362e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "B200": 2250e12,
}


def peak_of(card: str) -> float | None:
    """FLOP/s of a card, by the name that CUDA gives it; None if it is not among those we know."""
    known = [name for name in PEAK if name.lower() in card.lower()]
    return PEAK[max(known, key=len)] if known else None


def peak_here() -> float | None:
    """FLOP/s of this process's card; None without one that we know."""
    import torch

    return peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def flops_per_token(parameters: int, full: bool, reference: bool) -> float:
    """Of a step: a forward pass costs 2 a parameter, a backward pass twice that, or once where only adapters are trained.

    Args:
        reference: whether another model is asked for its log-probabilities.
    """
    return parameters * (2.0 + (4.0 if full else 2.0) + (2.0 if reference else 0.0))
