"""From micro-batches to gradients: forward passes of policy and reference, the objective, the backward pass.

Invariants: every rank does the same number of forward and backward passes, because each is a collective under ZeRO-3; the last
backward of a step, and no other, is the boundary at which DeepSpeed reduces.

It does not step the optimizer, nor know what the reference is made of: that is `engine`.
"""

from typing import Any

import torch

from learners.batch.demonstrations import SftBatch
from learners.batch.micro_batches import ItemMicro, PairMicro, Sequences, StepBatch
from learners.loss.logprobs import over_tokens, token_entropy, token_logp
from learners.loss.objective import AnswerScores, Objective
from learners.zero3.lora import Adapters
from protocol.recipe import LearnerConfig


def score_answers(model: Any, sequences: Sequences, entropy: bool = False) -> AnswerScores:
    """One forward pass of a DeepSpeed engine. `entropy`: whether the entropies are wanted."""
    tokens_BT, attention_BT, targets_BK, mask_BK = (
        torch.from_numpy(array).to(model.device)
        for array in (sequences.tokens_BT, sequences.attention_BT, sequences.targets_BK, sequences.mask_BK)
    )
    logits_BKV = model(
        input_ids=tokens_BT, attention_mask=attention_BT, logits_to_keep=targets_BK.shape[1], use_cache=False
    ).logits
    return AnswerScores(token_logp(logits_BKV, targets_BK), mask_BK, token_entropy(logits_BKV) if entropy else None)


class Gradients:
    """Accumulates the gradient of one rank's share of a step in the policy.

    Args:
        policy: the DeepSpeed engine that is trained.
        reference: one that only computes; None: adapters or the sampler take its place.
        adapters: of the policy, if it has some.
        objective: the loss.
        config: this learner's section of the recipe.
    """

    def __init__(
        self, policy: Any, reference: Any, adapters: Adapters | None, objective: Objective, config: LearnerConfig
    ) -> None:
        self._policy, self._reference, self._adapters = policy, reference, adapters
        self._objective, self._config = objective, config
        self._world = torch.distributed.get_world_size()

    def accumulate(self, batch: StepBatch, demonstrations: SftBatch | None, sums: torch.Tensor) -> None:
        """The gradient of everything that this rank has of a step.

        Args:
            batch, demonstrations: this rank's share.
            sums: the objective's statistics are added to it, and to its last place the demonstrations' summed NLL.
        """
        cfg = self._config
        for k, micro in enumerate(batch.micro, 1):
            reference_BK = self._reference_logp(micro)
            policy = score_answers(self._policy, micro.sequences, entropy=cfg.entropy > 0)
            loss, part = self._objective(micro, policy, reference_BK)
            # DeepSpeed averages gradients over ranks, so a rank's sum is scaled up by their number.
            self._backward(loss * (self._world / batch.units), last=demonstrations is None and k == len(batch.micro))
            sums[:-1] += part
        if demonstrations is not None:
            sums[-1] += self.imitate(demonstrations, cfg.sft.weight)

    def imitate(self, demonstrations: SftBatch, weight: float) -> torch.Tensor:
        """The gradient of `weight` times the mean NLL of the demonstrations' answer tokens. Nothing of the step comes after it.

        Args:
            demonstrations: this rank's share.

        Returns:
            Its summed NLL, () fp32.
        """
        total = torch.zeros((), device=self._policy.device)
        for k, sequences in enumerate(demonstrations.micro, 1):
            scores = score_answers(self._policy, sequences)
            nll = -over_tokens(scores.logp_BK, scores.mask_BK, "sum").sum()
            scaled = nll * (weight * self._world / demonstrations.answer_tokens)
            self._backward(scaled, last=k == len(demonstrations.micro))
            total += nll.detach()
        return total

    def _reference_logp(self, micro: PairMicro | ItemMicro) -> torch.Tensor:
        if self._config.reference == "sampler":
            assert micro.sampler_BK is not None
            return torch.from_numpy(micro.sampler_BK).to(self._policy.device)
        with torch.no_grad():
            if self._adapters is None:
                return score_answers(self._reference, micro.sequences).logp_BK
            self._policy.eval()  # no dropout, and nothing set up to compute activations again
            with self._adapters.as_reference():
                logp_BK = score_answers(self._policy, micro.sequences).logp_BK
            self._policy.train()
            return logp_BK

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        self._policy.set_gradient_accumulation_boundary(last)
        self._policy.backward(loss, scale_wrt_gas=False)
