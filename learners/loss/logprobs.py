"""Log-probabilities and entropies of tokens from logits. Pure torch: no model, no process group.

Invariants: softmaxes and sums are float32 for half-precision and float32 logits and float64 for float64 ones; never more than a
chunk of the logits is held at that width, so a 152k vocabulary costs no second copy of the logits. The logits are left as they
are: more than one function may read them.

Shape suffixes: B rows, T positions, V vocabulary, N = B * T.
"""

from typing import Any, Literal

import torch

# Elements of logits widened at a time (128 MiB of float32): a 152k vocabulary over 16k tokens would otherwise be 10 GB.
_CHUNK_ELEMENTS = 1 << 25
Length = Literal["sum", "mean"]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def _chunks(logits_NV: torch.Tensor) -> list[slice]:
    rows = max(1, _CHUNK_ELEMENTS // logits_NV.shape[-1])
    return [slice(start, start + rows) for start in range(0, len(logits_NV), rows)]


def _log_softmax(logits_NV: torch.Tensor, norm_N: torch.Tensor, part: slice) -> torch.Tensor:
    """A widened chunk of its own: whatever is done to it in place, the logits stay."""
    return torch.sub(logits_NV[part], norm_N[part, None])


class _TokenLogp(torch.autograd.Function):
    """log softmax at one target for each position."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        wide = _wide(logits_NV.dtype)
        norm_N = torch.cat([logits_NV[part].to(wide).logsumexp(-1) for part in _chunks(logits_NV)])
        ctx.save_for_backward(logits_NV, targets_N, norm_N)
        return logits_NV.gather(-1, targets_N[:, None]).squeeze(-1).to(wide) - norm_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits_NV, targets_N, norm_N = ctx.saved_tensors
        (grad_N,) = grads
        grad_NV = torch.empty_like(logits_NV)
        for part in _chunks(logits_NV):
            chunk = _log_softmax(logits_NV, norm_N, part).exp_().mul_(-grad_N[part, None])
            chunk.scatter_add_(-1, targets_N[part, None], grad_N[part, None])
            grad_NV[part] = chunk
        return grad_NV, None


class _TokenEntropy(torch.autograd.Function):
    """-sum p log p over the vocabulary for each position; its gradient by logit j is -p_j (log p_j + H)."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor) -> torch.Tensor:
        wide = _wide(logits_NV.dtype)
        norms, entropies = [], []
        for part in _chunks(logits_NV):
            norms.append(logits_NV[part].to(wide).logsumexp(-1))
            logp = torch.sub(logits_NV[part], norms[-1][:, None])
            entropies.append(-(logp.exp() * logp).sum(-1))
        norm_N, entropy_N = torch.cat(norms), torch.cat(entropies)
        ctx.save_for_backward(logits_NV, norm_N, entropy_N)
        return entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        logits_NV, norm_N, entropy_N = ctx.saved_tensors
        (grad_N,) = grads
        grad_NV = torch.empty_like(logits_NV)
        for part in _chunks(logits_NV):
            logp = _log_softmax(logits_NV, norm_N, part)
            grad_NV[part] = logp.exp().mul_(logp.add_(entropy_N[part, None])).mul_(-grad_N[part, None])
        return grad_NV


def token_logp(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Each position's log-probability of its target (B, T), natural logarithm.

    Args:
        logits_BTV: any floating dtype; position t holds the distribution of `targets_BT[:, t]`.
        targets_BT: int64 token ids.
    """
    logp_N: torch.Tensor = _TokenLogp.apply(  # type: ignore[no-untyped-call]
        logits_BTV.reshape(-1, logits_BTV.shape[-1]), targets_BT.reshape(-1)
    )
    return logp_N.view(targets_BT.shape)


def token_entropy(logits_BTV: torch.Tensor) -> torch.Tensor:
    """Each position's entropy over the whole vocabulary (B, T), in nats."""
    entropy_N: torch.Tensor = _TokenEntropy.apply(  # type: ignore[no-untyped-call]
        logits_BTV.reshape(-1, logits_BTV.shape[-1])
    )
    return entropy_N.view(logits_BTV.shape[:-1])


def over_tokens(values_BT: torch.Tensor, mask_BT: torch.Tensor, length: Length) -> torch.Tensor:
    """Each row's sum or mean over the positions that the mask names (B); 0 for a row that it leaves empty."""
    summed_B = torch.where(mask_BT, values_BT, 0.0).sum(-1)
    return summed_B if length == "sum" else summed_B / mask_BT.sum(-1).clamp(min=1)
