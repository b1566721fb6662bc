"""The losses of GAME.md 4 as formulas on log-probabilities. Pure torch: no model, no configuration, no weights of rows.

Every function keeps the dtype it is given. `objective` decides what is averaged over what.

Shape suffixes: B rows, T positions, P pairs.
"""

import math

import torch
import torch.nn.functional as F


def dpo(gap_P: torch.Tensor, beta: float) -> torch.Tensor:
    """-log sigmoid(beta gap) (Rafailov et al. 2023, eq. 7).

    Args:
        gap_P: Delta_w - Delta_l, where Delta is the policy's log-probability of a completion less the reference's.
        beta: strength of the pull to the reference, no unit.
    """
    return F.softplus(-beta * gap_P)


def ipo(gap_P: torch.Tensor, beta: float) -> torch.Tensor:
    """(gap - 1 / (2 beta))^2 (Azar et al. 2023, eq. 17); `gap_P` as for `dpo`."""
    return (gap_P - 1.0 / (2.0 * beta)) ** 2


def k3(logp_BT: torch.Tensor, reference_BT: torch.Tensor) -> torch.Tensor:
    """exp(r - p) - (r - p) - 1 for each token: a non-negative estimate of KL(policy || reference) on the policy's samples."""
    apart_BT = reference_BT - logp_BT
    return torch.expm1(apart_BT) - apart_BT


def truncated_ratio(logp_BT: torch.Tensor, sampler_BT: torch.Tensor, cap: float) -> torch.Tensor:
    """min(p_policy / p_sampler, cap) for each token; its gradient is 0 above the cap.

    Truncated before it is exponentiated: the ratio of a token that the sampler found next to impossible overflows.
    """
    return (logp_BT - sampler_BT).clamp(max=math.log(cap)).exp()


def grpo(
    logp_BT: torch.Tensor,
    sampler_BT: torch.Tensor,
    reference_BT: torch.Tensor,
    advantage_B: torch.Tensor,
    *,
    beta: float,
    cap: float,
    detached: bool,
) -> torch.Tensor:
    """The loss of each token (B, T): truncated importance sampling times advantage, and the KL term.

    Args:
        logp_BT: the policy's; carries the gradient.
        sampler_BT: the log-probabilities that the tokens were drawn with.
        reference_BT: the reference's.
        advantage_B: reward less baseline.
        beta: weight of `k3`.
        cap: of the ratio.
        detached: `grpo_ratio: default`. Otherwise the ratio carries a gradient beside that of the log-probability, so
            that below the cap the whole is doubled.
    """
    ratio_BT = truncated_ratio(logp_BT, sampler_BT, cap)
    gain_BT = ratio_BT.detach() * logp_BT if detached else ratio_BT * torch.exp(logp_BT - logp_BT.detach())
    return beta * k3(logp_BT, reference_BT) - advantage_B[:, None] * gain_BT
