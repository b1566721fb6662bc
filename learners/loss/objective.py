"""What a learner minimises, from its configuration: micro-batches and log-probabilities to a loss and statistics. Pure torch.

Invariants: a dummy moves neither the loss nor a statistic; the loss is a sum over units (pairs, or groups), which the
caller divides by their number in the whole batch; `loss` among the statistics is the game's own loss (with GRPO's KL term), and
the NLL and entropy terms, where they have a weight, are reported beside it, unweighted.

It does not know how log-probabilities come about, ranks, or steps.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from learners.batch.micro_batches import ItemMicro, PairMicro
from learners.loss.logprobs import over_tokens
from learners.loss.losses import dpo, grpo, ipo, k3, truncated_ratio
from protocol.recipe import LearnerConfig, QuirksConfig

Per = Literal["units", "items", "answer_tokens"]  # the field of `StepBatch` that a statistic's sum is divided by


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """What a model says of a micro-batch's answers: log-probabilities, where they count, and entropies if asked for."""

    logp_BK: torch.Tensor
    mask_BK: torch.Tensor
    entropy_BK: torch.Tensor | None


class Objective(Protocol):
    """A loss. `unit` is what it is a mean over, `statistics` what it reports and what each is a mean over."""

    unit: str
    statistics: dict[str, Per]

    def __call__(
        self, micro: PairMicro | ItemMicro, policy: AnswerScores, reference_BK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The scalar loss, summed over the micro-batch's units, and the sums of the statistics, in their order."""
        ...


def make_objective(config: LearnerConfig, quirks: QuirksConfig) -> Objective:
    """The one that the recipe names."""
    return GroupObjective(config, quirks) if config.loss == "grpo" else PairObjective(config)


class PairObjective:
    """DPO and IPO.

    Statistics over pairs: loss, accuracy (share whose chosen item the policy prefers more than the reference does), margin
    beta (Delta_w - Delta_l), delta_chosen, delta_rejected, and kl: the mean of -Delta where the reference itself drew the batch
    (an estimate of KL(reference || policy)) and of Delta where the policy did (KL(policy || reference)), in nats a
    completion, or a token with `length: mean`. With `reference: sampler` the reference is by definition what drew it, and
    sampler_gap is the mean |log p_policy - log p_sampler| over tokens: what the policy has moved since, and, from the first step
    on, what the sampling engine's numerics differ from the trainer's, which is a bias of Delta.
    """

    unit = "pairs"

    def __init__(self, config: LearnerConfig) -> None:
        self._config = config
        self._sampler_is_reference = config.reference == "sampler"
        self._kl_sign = -1.0 if self._sampler_is_reference or config.reference == config.sampler == "ema" else 1.0
        names = ["loss", "accuracy", "margin", "delta_chosen", "delta_rejected", "kl"]
        names += [name for name in ("nll", "entropy") if getattr(config, name) > 0]
        self.statistics: dict[str, Per] = dict.fromkeys(names, "units")
        if self._sampler_is_reference:
            self.statistics["sampler_gap"] = "answer_tokens"

    def __call__(
        self, micro: PairMicro | ItemMicro, policy: AnswerScores, reference_BK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(micro, PairMicro)
        cfg = self._config
        delta_B = over_tokens(policy.logp_BK - reference_BK, policy.mask_BK, cfg.length)
        weight_P = torch.from_numpy(micro.weight_P).to(delta_B)
        chosen_P, rejected_P = delta_B.chunk(2)
        gap_P = chosen_P - rejected_P
        loss_P = dpo(gap_P, cfg.beta) if cfg.loss == "dpo" else ipo(gap_P, cfg.beta)
        kl_P = self._kl_sign * (chosen_P + rejected_P) / 2
        columns = [loss_P, (gap_P > 0).to(gap_P), cfg.beta * gap_P, chosen_P, rejected_P, kl_P]
        total_P = loss_P
        if cfg.nll > 0:
            nll_P = -over_tokens(policy.logp_BK, policy.mask_BK, "mean").chunk(2)[0]
            total_P = total_P + cfg.nll * nll_P
            columns.append(nll_P)
        if policy.entropy_BK is not None:
            entropy_P = torch.stack(over_tokens(policy.entropy_BK, policy.mask_BK, "mean").chunk(2)).mean(0)
            total_P = total_P - cfg.entropy * entropy_P
            columns.append(entropy_P)
        if self._sampler_is_reference:
            gap_B = over_tokens((policy.logp_BK - reference_BK).abs(), policy.mask_BK, "sum")
            columns.append(torch.stack(gap_B.chunk(2)).sum(0))
        sums = (weight_P[:, None] * torch.stack(columns, dim=-1).detach()).sum(0)
        return (weight_P * total_P).sum(), sums


class GroupObjective:
    """GRPO.

    Statistics: loss over groups; over items kl (k3 to the reference, in nats a completion, or a token with `length: mean`) and
    entropy; over tokens ratio_mean (truncated) and ratio_capped, the share above the cap. With `reference: sampler` the KL term
    holds the policy to the version that sampled, a bound on each step and not on the way; its samples are then the reference's, for
    which k3 is the same to second order.
    """

    unit = "groups"

    def __init__(self, config: LearnerConfig, quirks: QuirksConfig) -> None:
        self._config = config
        self._detached = quirks.grpo_ratio == "default"
        self.statistics: dict[str, Per] = {
            "loss": "units",
            "kl": "items",
            "ratio_mean": "answer_tokens",
            "ratio_capped": "answer_tokens",
        }
        if config.entropy > 0:
            self.statistics["entropy"] = "items"

    def __call__(
        self, micro: PairMicro | ItemMicro, policy: AnswerScores, reference_BK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(micro, ItemMicro)
        cfg, mask_BK = self._config, policy.mask_BK
        weight_B, advantage_B, sampler_BK = (
            torch.from_numpy(array).to(policy.logp_BK)
            for array in (micro.weight_B, micro.advantage_B, micro.sampler_BK)
        )
        # Where nothing counts all three are alike: an exponential of padding must not overflow into the gradient.
        logp_BK = torch.where(mask_BK, policy.logp_BK, 0.0)
        reference_BK = torch.where(mask_BK, reference_BK, 0.0)
        loss_BK = grpo(
            logp_BK,
            sampler_BK,
            reference_BK,
            advantage_B,
            beta=cfg.beta,
            cap=cfg.ratio_cap,
            detached=self._detached,
        )
        loss_B = over_tokens(loss_BK, mask_BK, cfg.length)
        total_B = loss_B
        with torch.no_grad():
            ratio_BK = truncated_ratio(logp_BK, sampler_BK, cfg.ratio_cap)
            capped_BK = (logp_BK - sampler_BK > math.log(cfg.ratio_cap)).to(logp_BK)
            columns = [
                weight_B * loss_B,
                over_tokens(k3(logp_BK, reference_BK), mask_BK, cfg.length),
                over_tokens(ratio_BK, mask_BK, "sum"),
                over_tokens(capped_BK, mask_BK, "sum"),
            ]
        if policy.entropy_BK is not None:
            entropy_B = over_tokens(policy.entropy_BK, mask_BK, "mean")
            total_B = total_B - cfg.entropy * entropy_B
            columns.append(entropy_B.detach())
        return (weight_B * total_B).sum(), torch.stack(columns, dim=-1).sum(0)
