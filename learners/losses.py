"""Log-probabilities of completions and the DPO loss (GAME.md 4). Pure torch: no model, no process group.

Invariants: every sum and softmax is float32 whatever the logits are; a row of weight 0 moves neither the loss nor a statistic.
It does not know how rows were batched or what their weights mean: the caller scales them.

Shape suffixes: B rows, T positions, V vocabulary, N = B * T, P pairs. A pair's chosen row is row p, its rejected one row P + p.
"""

from typing import Any

import torch
import torch.nn.functional as F

# Elements of logits turned into float32 at a time (128 MiB): a 152k vocabulary over 16k tokens would otherwise be 10 GB.
_CHUNK_ELEMENTS = 1 << 25
STATISTICS = ("loss", "accuracy", "margin", "delta_chosen", "delta_rejected", "kl")


class _TokenLogp(torch.autograd.Function):
    """log softmax at one target for each position, float32, never holding more than a chunk of float32 logits."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        rows = max(1, _CHUNK_ELEMENTS // logits_NV.shape[-1])
        norm_N = torch.cat([chunk.float().logsumexp(-1) for chunk in torch.split(logits_NV, rows)])
        ctx.save_for_backward(logits_NV, targets_N, norm_N)
        return logits_NV.gather(-1, targets_N[:, None]).squeeze(-1).float() - norm_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits_NV, targets_N, norm_N = ctx.saved_tensors
        (grad_N,) = grads
        rows = max(1, _CHUNK_ELEMENTS // logits_NV.shape[-1])
        grad_NV = torch.empty_like(logits_NV)
        for start in range(0, len(targets_N), rows):
            part = slice(start, start + rows)
            chunk = logits_NV[part].float().sub_(norm_N[part, None]).exp_().mul_(-grad_N[part, None])
            chunk.scatter_add_(-1, targets_N[part, None], grad_N[part, None])
            grad_NV[part] = chunk
        return grad_NV, None


def summed_logp(logits_BTV: torch.Tensor, targets_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Each row's summed log-probability of its targets, natural logarithm, float32.

    Args:
        logits_BTV: any floating dtype; position t holds the distribution of `targets_BT[:, t]`.
        targets_BT: int64 token ids; anything valid where the mask is False.
        mask_BT: which positions count.
    """
    vocabulary = logits_BTV.shape[-1]
    logp_N: torch.Tensor = _TokenLogp.apply(  # type: ignore[no-untyped-call]
        logits_BTV.reshape(-1, vocabulary), targets_BT.reshape(-1)
    )
    return torch.where(mask_BT, logp_N.view(mask_BT.shape), 0.0).sum(-1)


def dpo(
    policy_logp_B: torch.Tensor, reference_logp_B: torch.Tensor, weight_P: torch.Tensor, beta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted sum of -log sigmoid(beta (Delta_w - Delta_l)) over pairs (Rafailov et al. 2023, eq. 7), and statistics.

    Args:
        policy_logp_B: 2P summed log-probabilities, the chosen rows first; carries the gradient.
        reference_logp_B: the same rows under the reference.
        weight_P: 0 for a row that is there only to join collectives.
        beta: strength of the pull to the reference, no unit.

    Returns:
        The scalar loss, and a float32 vector of weighted sums in the order of `STATISTICS`: loss, pairs ranked rightly,
        margin beta (Delta_w - Delta_l), Delta_w, Delta_l, and the estimate -Delta of KL(reference || policy) in nats a
        completion, which holds as far as the reference drew the batch.
    """
    chosen_P, rejected_P = (policy_logp_B - reference_logp_B).chunk(2)
    margin_P = beta * (chosen_P - rejected_P)
    loss_P = F.softplus(-margin_P)
    columns_PS = torch.stack(
        [loss_P, (margin_P > 0).float(), margin_P, chosen_P, rejected_P, -(chosen_P + rejected_P) / 2], dim=-1
    )
    return (weight_P * loss_P).sum(), (weight_P[:, None] * columns_PS.detach()).sum(0)
