"""One rank of a learner group's numbers: a policy and its reference under DeepSpeed ZeRO-3, on a CPU (gloo) or a GPU (nccl).

Two models, both partitioned: the policy with AdamW over fp32 master shards, and the reference, which is the policy's exponential
moving average (`reference: ema`) or stays as it was loaded (`frozen`). What is staged and exported is the average (`sampler: ema`)
or the policy itself; an average is kept only where one of the two reads it, and lives on the shards (`shards`).

Invariants
- Everything public is collective: all ranks call it with the same arguments, in the same order.
- What leaves the group comes from fp32 shards, whatever the compute dtype.

It does not know Ray, where rows come from, or when to save: that is `loop`; nor what is minimised: that is `objective`.
"""

import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learners import checkpoints, wire
from learners.logprobs import over_tokens, token_entropy, token_logp
from learners.objective import Scored, make_objective
from learners.packing import Sequences, StepBatch
from learners.schedule import lr_at
from learners.sft import SftBatch
from learners.shards import Average, master_shards, pack
from protocol.randomness import derive_seed
from protocol.recipe import LearnerConfig, QuirksConfig
from protocol.roles import Player
from protocol.types import TensorSpec, WeightManifest

_POLICY_TAG = "policy"


class ZeroEngine:
    """Trains one player's policy. `torch.distributed` is initialised, or the environment says how DeepSpeed can do it.

    Args:
        model_path: a Hugging Face folder; policy, reference and average all start from it.
        config: this learner's section of the recipe.
        steps: the horizon of the learning-rate schedule.
        seed: the run's.
        quirks: the recipe's.
    """

    def __init__(self, model_path: str, config: LearnerConfig, steps: int, seed: int, quirks: QuirksConfig) -> None:
        os.environ.setdefault("DS_ACCELERATOR", "cuda" if config.gpus_per_rank else "cpu")
        import deepspeed
        from deepspeed.utils import logger as deepspeed_logger

        # Only DeepSpeed inference uses this operator, and making it costs half a minute of C++ on a fresh machine.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed_logger.setLevel("WARNING")
        # DeepSpeed 0.19 calls torch's old collective names, once for every parameter.
        warnings.filterwarnings("ignore", message=r".*torch\.distributed\.\w+` is deprecated", category=FutureWarning)
        deepspeed.init_distributed("nccl" if config.gpus_per_rank else "gloo")
        self.config, self.steps, self.model_path = config, steps, Path(model_path)
        self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.steps_done = 0
        self.version = 0
        self._objective = make_objective(config, quirks)
        self._advances_per_step = 2 if quirks.lr_schedule == "paper" else 1
        torch.manual_seed(derive_seed(seed, "learner", self.rank))

        policy, reference = self._load_models()
        optimizer = torch.optim.AdamW(
            policy.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self._policy, *_ = deepspeed.initialize(
            model=policy,
            optimizer=optimizer,
            config=self._deepspeed_config(config.stage3_param_persistence_threshold)
            | {"gradient_clipping": config.clip},
        )
        # A persistent parameter would keep serving the values of its first gather: all of the reference's stay partitioned.
        self._reference, *_ = deepspeed.initialize(model=reference, config=self._deepspeed_config(0))
        self._average: Average | None = None
        if "ema" in (config.reference, config.sampler):
            mirror = self._reference if config.reference == "ema" else None
            self._average = Average(master_shards(self._policy), config.ema_decay, mirror)

    # -- learning

    def step(self, batches: StepBatch, step_index: int, demonstrations: SftBatch | None = None) -> dict[str, float]:
        """One optimizer step on this rank's share of a batch and of the demonstrations, then the average.

        The loss is the mean over the pairs or groups of the whole batch, plus `config.sft.weight` times the mean over the
        demonstrations' answer tokens. A batch without anything to learn from, which every rank sees alike, leaves policy and
        optimizer exactly as they are (no weight decay, no momentum, no demonstrations); the schedule and the average move on.

        Returns:
            The objective's statistics over the whole batch (see `objective`), sft_nll where there are demonstrations, the batch's
            facts, and grad_norm before clipping, lr, tokens (unpadded, all ranks), pairs or groups, items, rows, skipped (1
            when the gradient was not finite and DeepSpeed did not apply it), and seconds. What nothing was measured on is left
            out: statistics and sft_nll of a batch without an item, facts of one without a pair or group.
        """
        started = time.perf_counter()
        cfg, names = self.config, self._objective.statistics
        rate = lr_at(
            step_index,
            lr=cfg.lr,
            final_fraction=cfg.lr_final_fraction,
            warmup_steps=cfg.warmup_steps,
            steps=self.steps,
            advances_per_step=self._advances_per_step,
        )
        for group in self._policy.optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(len(names) + 1, device=self._policy.device)  # the last: the demonstrations' summed NLL
        grad_norm, skipped = 0.0, 0.0
        if batches.items:
            self._accumulate(batches, demonstrations, sums)
            self._policy.step()
            grad_norm = float(self._policy.get_global_grad_norm())
            skipped = float(not self._policy.was_step_applied())
        if self._average is not None:
            self._average.update(master_shards(self._policy))
        torch.distributed.all_reduce(sums)
        self.steps_done = step_index + 1
        *totals, nll = sums.tolist()
        metrics: dict[str, float] = {}
        if batches.items:
            metrics |= {name: total / getattr(batches, names[name]) for name, total in zip(names, totals, strict=True)}
            if demonstrations is not None:
                metrics["sft_nll"] = nll / demonstrations.answer_tokens
        return (
            metrics
            | (batches.facts if batches.units else {})
            | {
                "grad_norm": grad_norm,
                "lr": rate,
                "tokens": float(batches.tokens),
                self._objective.unit: float(batches.units),
                "items": float(batches.items),
                "rows": float(batches.rows),
                "skipped": skipped,
                "seconds": time.perf_counter() - started,
            }
        )

    def _accumulate(self, batches: StepBatch, demonstrations: SftBatch | None, sums: torch.Tensor) -> None:
        """The gradient of everything that this rank has of a step; adds its statistics to `sums`."""
        cfg = self.config
        shown = () if demonstrations is None else demonstrations.micro
        left = len(batches.micro) + len(shown)
        for micro in batches.micro:
            left -= 1
            with torch.no_grad():
                reference = self._scored(self._reference, micro.sequences)
            policy = self._scored(self._policy, micro.sequences, entropy=cfg.entropy > 0)
            loss, part = self._objective(micro, policy, reference.logp_BK)
            # DeepSpeed averages gradients over ranks, so a rank's sum is scaled up by their number.
            self._backward(loss * (self.world / batches.units), last=left == 0)
            sums[:-1] += part
        for sequences in shown:
            assert demonstrations is not None
            left -= 1
            scored = self._scored(self._policy, sequences)
            nll = -over_tokens(scored.logp_BK, scored.mask_BK, "sum").sum()
            self._backward(nll * (cfg.sft.weight * self.world / demonstrations.answer_tokens), last=left == 0)
            sums[-1] += nll.detach()

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        self._policy.set_gradient_accumulation_boundary(last)
        self._policy.backward(loss, scale_wrt_gas=False)

    def _scored(self, engine: Any, sequences: Sequences, entropy: bool = False) -> Scored:
        tokens_BT, attention_BT, targets_BK, mask_BK = (
            torch.from_numpy(array).to(engine.device)
            for array in (sequences.tokens_BT, sequences.attention_BT, sequences.targets_BK, sequences.mask_BK)
        )
        logits_BKV = engine(
            input_ids=tokens_BT, attention_mask=attention_BT, logits_to_keep=targets_BK.shape[1], use_cache=False
        ).logits
        return Scored(token_logp(logits_BKV, targets_BK), mask_BK, token_entropy(logits_BKV) if entropy else None)

    # -- what leaves the group

    def stage(
        self, dtype: str, player: Player, version: int, step: int
    ) -> tuple[WeightManifest, NDArray[np.uint8] | None]:
        """Packs the sampler's weights on rank 0, under their Hugging Face names; a tied lm_head and buffers are left out.

        Args:
            dtype: "float32" or "bfloat16", of the packed tensors.
            player: whose weights these are.
            version: the policy version that they become.
            step: optimizer steps that they contain.

        Returns:
            The manifest and, on rank 0, the packed bytes. The checksum is empty on the other ranks.
        """
        specs, packed = self._pack(dtype)
        self.version = version
        digest = wire.checksum(packed) if packed is not None else ""
        return WeightManifest(player, version, specs, wire.total_bytes(specs), digest, step), packed

    def export(self, dir: Path, dtype: str) -> None:
        """Writes the sampler's weights as a Hugging Face folder that `AutoModelForCausalLM.from_pretrained` loads."""
        from learners.export import write_folder

        specs, packed = self._pack(dtype)
        if packed is not None:
            write_folder(self.model_path, Path(dir), specs, packed)
        torch.distributed.barrier()

    def _pack(self, dtype: str) -> tuple[tuple[TensorSpec, ...], NDArray[np.uint8] | None]:
        shapes = [(name, tuple(param.ds_shape)) for name, param in self._policy.module.named_parameters()]
        if self.config.sampler == "policy":
            return pack(shapes, master_shards(self._policy), dtype)
        assert self._average is not None
        return pack(shapes, self._average.shards, dtype)

    # -- checkpoints

    def save(self, dir: Path) -> None:
        """Writes policy, optimizer, average, random states and position into `dir`; it need not exist."""
        self._policy.save_checkpoint(str(dir), tag=_POLICY_TAG, save_latest=False)
        shards = {} if self._average is None else self._average.shards
        state = {
            "ema": {name: shard.detach().cpu().clone() for name, shard in shards.items()},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.config.gpus_per_rank else None,
        }
        torch.save(state, dir / f"rank-{self.rank}.pt")
        torch.distributed.barrier()
        if self.rank == 0:
            checkpoints.write_meta(
                dir, step=self.steps_done, version=self.version, ranks=self.world, config=self.config
            )
        torch.distributed.barrier()

    def load(self, dir: Path) -> None:
        """Continues exactly where `save` left off. Call it on a fresh engine.

        Raises:
            UserError: another number of ranks, or a learner with another reference or sampler, wrote `dir`.
        """
        self.steps_done, self.version = checkpoints.read_meta(dir, self.world, self.config)
        loaded, _ = self._policy.load_checkpoint(str(dir), tag=_POLICY_TAG)
        if loaded is None:
            raise FileNotFoundError(f"{dir}: DeepSpeed found no checkpoint {_POLICY_TAG!r} in it")
        state = torch.load(dir / f"rank-{self.rank}.pt", weights_only=True)
        if self._average is not None:
            self._average.load(state["ema"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.config.gpus_per_rank:
            torch.cuda.set_rng_state(state["cuda_rng"])
        torch.distributed.barrier()

    # -- building

    def _load_models(self) -> tuple[Any, Any]:
        """Policy and reference module, each partitioned while it is read, so that no rank ever holds a whole one."""
        from transformers import AutoModelForCausalLM
        from transformers.integrations.deepspeed import HfDeepSpeedConfig
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        dtype = getattr(torch, self.config.dtype)
        partition_while_loading = HfDeepSpeedConfig(self._deepspeed_config(0))
        policy, reference = (AutoModelForCausalLM.from_pretrained(self.model_path, dtype=dtype) for _ in range(2))
        del partition_while_loading  # its mere existence switches transformers to ZeRO-3
        policy.train()
        if self.config.gpus_per_rank:
            # Activations of 16k tokens do not fit beside a 7B policy and its reference; on the CPU memory is not what is short.
            policy.gradient_checkpointing_enable()
        reference.eval()
        return policy, reference

    def _deepspeed_config(self, persistence_threshold: int) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,  # `step` marks the boundary itself: micro-batches differ from step to step
            "bf16": {"enabled": self.config.dtype == "bfloat16"},
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": persistence_threshold},
        }
