"""One rank of a learner group's numbers: policy and EMA under DeepSpeed ZeRO-3, on a CPU (gloo) or a GPU (nccl).

Two models, both partitioned: the policy with AdamW over fp32 master shards, and its exponential moving average, which is the DPO
reference and what is staged and exported. Every rank averages its own shards; nothing is gathered for that.

Invariants
- Everything public is collective: all ranks call it with the same arguments, in the same order.
- The EMA is averaged against the fp32 master shards in fp32, whatever the compute dtype. At a learning rate of 1e-6 a bfloat16
  average would round every change away; with bfloat16 compute the fp32 shards are kept beside the compute copy and copied down.
- A gather is finished before anything else communicates.

It does not know Ray, where rows come from, or when to save: that is `loop`. Versions are told to it by `stage`.
"""

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners import checkpoints, wire
from learners.batching import MicroBatch, StepBatch
from learners.schedule import lr_at
from protocol.randomness import derive_seed
from protocol.recipe import LearnerConfig
from protocol.roles import Player
from protocol.types import TensorSpec, WeightManifest

_GATHER_BYTES = 256 << 20  # full tensors held at once while staging: a few layers of a 7B model
_POLICY_TAG = "policy"


class ZeroEngine:
    """Trains one player's policy. `torch.distributed` is initialised, or the environment says how DeepSpeed can do it.

    Args:
        model_path: a Hugging Face folder; policy and EMA both start from it.
        config: this learner's section of the recipe.
        steps: the horizon of the learning-rate schedule.
        seed: the run's.
    """

    def __init__(self, model_path: str, config: LearnerConfig, steps: int, seed: int) -> None:
        os.environ.setdefault("DS_ACCELERATOR", "cuda" if config.gpus_per_rank else "cpu")
        import deepspeed
        import torch
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
        torch.manual_seed(derive_seed(seed, "learner", self.rank))

        policy, ema = self._load_models()
        optimizer = torch.optim.AdamW(
            policy.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self._policy, *_ = deepspeed.initialize(
            model=policy,
            optimizer=optimizer,
            config=self._deepspeed_config(config.stage3_param_persistence_threshold)
            | {"gradient_clipping": config.clip},
        )
        # A persistent parameter of the EMA would keep serving the values of its first gather: all of them stay partitioned.
        self._ema, *_ = deepspeed.initialize(model=ema, config=self._deepspeed_config(0))
        self._shards = {name: self._first_shard(param, master) for name, param, master in self._pairs()}

    # -- learning

    def step(self, batches: StepBatch, step_index: int) -> dict[str, float]:
        """One optimizer step on this rank's share of a batch, then the EMA.

        The loss is the mean over the pairs of the whole batch. A batch without any pair, which every rank sees alike, leaves policy
        and optimizer exactly as they are (no weight decay, no momentum); the schedule and the EMA still move on.

        Returns:
            Means over the whole batch's pairs (loss, accuracy, margin, delta_chosen, delta_rejected, kl; see `losses.dpo`), and
            grad_norm before clipping, lr, tokens (unpadded, all ranks), pairs, rows, skipped (1 when the gradient was not
            finite and DeepSpeed did not apply it), and seconds.
        """
        import torch

        from learners.losses import STATISTICS, dpo

        started = time.perf_counter()
        cfg = self.config
        rate = lr_at(
            step_index, lr=cfg.lr, final_fraction=cfg.lr_final_fraction, warmup_steps=cfg.warmup_steps, steps=self.steps
        )
        for group in self._policy.optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(len(STATISTICS), device=self._policy.device)
        grad_norm, skipped = 0.0, 0.0
        if batches.pairs:
            # DeepSpeed averages gradients over ranks, so a rank's sum is scaled up by their number.
            scale = self.world / batches.pairs
            for position, micro in enumerate(batches.micro):
                with torch.no_grad():
                    reference_B = self._logp(self._ema, micro)
                self._policy.set_gradient_accumulation_boundary(position == len(batches.micro) - 1)
                weight_P = torch.from_numpy(micro.weight_P).to(self._policy.device)
                loss, part = dpo(self._logp(self._policy, micro), reference_B, weight_P, cfg.beta)
                self._policy.backward(loss * scale, scale_wrt_gas=False)
                sums += part
            self._policy.step()
            grad_norm = float(self._policy.get_global_grad_norm())
            skipped = float(not self._policy.was_step_applied())
        self._average()
        torch.distributed.all_reduce(sums)
        self.steps_done = step_index + 1
        means = dict(zip(STATISTICS, (sums / max(1, batches.pairs)).tolist(), strict=True))
        return means | {
            "grad_norm": grad_norm,
            "lr": rate,
            "tokens": float(batches.tokens),
            "pairs": float(batches.pairs),
            "rows": float(batches.rows),
            "skipped": skipped,
            "seconds": time.perf_counter() - started,
        }

    def _logp(self, engine: Any, micro: MicroBatch) -> Any:
        """Summed completion log-probabilities of each row, float32 (B)."""
        import torch

        from learners.losses import summed_logp

        tokens_BT, attention_BT, completion_BT = (
            torch.from_numpy(array).to(engine.device)
            for array in (micro.tokens_BT, micro.attention_BT, micro.completion_BT)
        )
        logits_BKV = engine(
            input_ids=tokens_BT, attention_mask=attention_BT, logits_to_keep=micro.keep, use_cache=False
        ).logits
        # Position t predicts token t + 1; the last position predicts nothing and is masked.
        targets_BK = tokens_BT[:, -micro.keep :].roll(-1, dims=1)
        mask_BK = completion_BT[:, -micro.keep :].roll(-1, dims=1)
        mask_BK[:, -1] = False
        return summed_logp(logits_BKV, targets_BK, mask_BK)

    def _average(self) -> None:
        import torch

        self._ema.optimizer.empty_partition_cache()  # a copy gathered for the forward must not outlive the shards it came from
        with torch.no_grad():
            for name, param, master in self._pairs():
                shard = self._shards[name]
                shard.lerp_(master, 1.0 - self.config.ema_decay)
                if shard.data_ptr() != param.ds_tensor.data_ptr():
                    param.ds_tensor.copy_(shard)

    # -- what leaves the group

    def stage(
        self, dtype: str, player: Player, version: int, step: int
    ) -> tuple[WeightManifest, NDArray[np.uint8] | None]:
        """Packs the EMA weights on rank 0, under their Hugging Face names; a tied lm_head and buffers are left out.

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
        """Writes the EMA weights as a Hugging Face folder that `AutoModelForCausalLM.from_pretrained` loads."""
        import torch

        from learners.export import write_folder

        specs, packed = self._pack(dtype)
        if packed is not None:
            write_folder(self.model_path, Path(dir), specs, packed)
        torch.distributed.barrier()

    def _pack(self, dtype: str) -> tuple[tuple[TensorSpec, ...], NDArray[np.uint8] | None]:
        import deepspeed
        import torch

        named = list(self._ema.module.named_parameters())
        specs = wire.layout(((name, tuple(param.ds_shape)) for name, param in named), dtype)
        packed = np.empty(wire.total_bytes(specs), np.uint8) if self.rank == 0 else None
        for group in wire.in_groups(specs, _GATHER_BYTES):
            with torch.no_grad(), deepspeed.zero.GatheredParameters([named[k][1] for k in group]):
                if packed is None:
                    continue
                for k in group:
                    room = torch.from_numpy(packed[specs[k].offset : specs[k].offset + specs[k].nbytes])
                    room.view(getattr(torch, dtype)).view(specs[k].shape).copy_(named[k][1])
        return specs, packed

    # -- checkpoints

    def save(self, dir: Path) -> None:
        """Writes policy, optimizer, EMA shards, random states and position into `dir`; it need not exist."""
        import torch

        self._policy.save_checkpoint(str(dir), tag=_POLICY_TAG, save_latest=False)
        cuda = torch.cuda.get_rng_state() if self.config.gpus_per_rank else None
        shards = {name: shard.detach().cpu().clone() for name, shard in self._shards.items()}
        torch.save({"ema": shards, "rng": torch.get_rng_state(), "cuda_rng": cuda}, dir / f"rank-{self.rank}.pt")
        torch.distributed.barrier()
        if self.rank == 0:
            checkpoints.write_meta(dir, step=self.steps_done, version=self.version, world_size=self.world)
        torch.distributed.barrier()

    def load(self, dir: Path) -> None:
        """Continues exactly where `save` left off. Call it on a fresh engine.

        Raises:
            UserError: another number of ranks wrote `dir`.
        """
        import torch

        self.steps_done, self.version = checkpoints.read_meta(dir, self.world)
        loaded, _ = self._policy.load_checkpoint(str(dir), tag=_POLICY_TAG)
        if loaded is None:
            raise FileNotFoundError(f"{dir}: DeepSpeed found no checkpoint {_POLICY_TAG!r} in it")
        state = torch.load(dir / f"rank-{self.rank}.pt", weights_only=True)
        with torch.no_grad():
            for name, param, _ in self._pairs():
                self._shards[name].copy_(state["ema"][name])
                param.ds_tensor.copy_(self._shards[name])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.config.gpus_per_rank:
            torch.cuda.set_rng_state(state["cuda_rng"])
        torch.distributed.barrier()

    # -- building

    def _load_models(self) -> tuple[Any, Any]:
        """Policy and EMA module, each partitioned while it is read, so that no rank ever holds a whole one."""
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.integrations.deepspeed import HfDeepSpeedConfig
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        dtype = getattr(torch, self.config.dtype)
        partition_while_loading = HfDeepSpeedConfig(self._deepspeed_config(0))
        policy, ema = (AutoModelForCausalLM.from_pretrained(self.model_path, dtype=dtype) for _ in range(2))
        del partition_while_loading  # its mere existence switches transformers to ZeRO-3
        policy.train()
        if self.config.gpus_per_rank:
            # Activations of 16k tokens do not fit beside a 7B policy and its EMA; on the CPU memory is not what is short.
            policy.gradient_checkpointing_enable()
        ema.eval()
        return policy, ema

    def _deepspeed_config(self, persistence_threshold: int) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,  # `step` marks the boundary itself: micro-batches differ from step to step
            "bf16": {"enabled": self.config.dtype == "bfloat16"},
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": persistence_threshold},
        }

    def _pairs(self) -> Iterator[tuple[str, Any, Any]]:
        """(name, EMA parameter, the policy's fp32 master shard of it on this rank), padding included in both shards."""
        from deepspeed.utils import safe_get_local_fp32_param

        policy = self._policy.module.named_parameters()
        for (name, param), (_, trained) in zip(self._ema.module.named_parameters(), policy, strict=True):
            yield name, param, safe_get_local_fp32_param(trained)

    def _first_shard(self, param: Any, master: Any) -> Any:
        """The fp32 EMA shard: the compute copy itself, or a copy of the master beside a bfloat16 one."""
        return param.ds_tensor.data if self.config.dtype == "float32" else master.detach().clone()
