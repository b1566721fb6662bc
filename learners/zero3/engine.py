"""One rank of a learner group: a policy and its reference under DeepSpeed ZeRO-3 (`setup`), and one optimizer step after another.

The policy is partitioned, with AdamW over fp32 master shards. The reference is its exponential moving average (`reference: ema`)
or stays as it was loaded (`frozen`): a second partitioned model, or, with adapters (`lora`), the same one with others or none. With
`reference: sampler` there is none: the log-probabilities that the batch was drawn with take its place. What is staged and exported
is the average (`sampler: ema`) or the policy itself; an average is kept only where one of the two reads it, and lives on the
shards (`shards`).

Invariants
- Everything public is collective: all ranks call it with the same arguments, in the same order.
- What was trained leaves the group as its fp32 shards, rounded at most once, whatever the compute dtype.

It does not know Ray, where rows come from, or when to save: that is `loop`; nor what is minimised (`objective`), nor how gradients
come about (`gradients`).
"""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learners.batch.demonstrations import SftBatch
from learners.batch.micro_batches import StepBatch
from learners.flops import flops_per_token
from learners.loss.objective import make_objective
from learners.storage import checkpoints, inventory
from learners.zero3.gradients import Gradients
from learners.zero3.lora import Adapters, name_for_peft
from learners.zero3.reshard import load_average, load_policy
from learners.zero3.schedule import lr_at
from learners.zero3.setup import (
    load_partitioned,
    prepare_deepspeed,
    recompute_activations,
    wrap_for_inference,
    wrap_for_training,
)
from learners.zero3.shards import Average, Mirror, Shards, master_shards, rounded_shards
from learners.zero3.staging import ORDINARY_MEMORY, Deadline, Destination, gather_packed
from protocol.packed import layout, total_bytes
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
        prepare_deepspeed(config)
        self.config, self.steps, self.model_path = config, steps, Path(model_path)
        self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.steps_done = 0
        self.warm_done = 0
        self.version = 0
        self._objective = make_objective(config, quirks)
        self._advances_per_step = 2 if quirks.lr_schedule == "paper" else 1
        torch.manual_seed(derive_seed(seed, "learner", self.rank))

        model = load_partitioned(model_path, config)
        if config.activation_checkpointing or (config.activation_checkpointing is None and config.gpus_per_rank > 0):
            recompute_activations(model)
        self._adapters: Adapters | None = None
        if config.lora is not None:
            self._adapters = Adapters(model, config.lora, config.reference == "ema", seed)
        # Those that were read are partitioned already, and `numel` is a rank's share; adapters, made since, are not.
        parameters = sum(int(getattr(param, "ds_numel", param.numel())) for param in model.parameters())
        self.flops_per_token = flops_per_token(parameters, config.lora is None, config.reference != "sampler")
        self._policy = wrap_for_training(model.train(), config)
        self._reference: Any = None
        if config.reference != "sampler" and self._adapters is None:
            self._reference = wrap_for_inference(load_partitioned(model_path, config).eval(), config)
        self._average = self._make_average() if "ema" in (config.reference, config.sampler) else None
        self._gradients = Gradients(self._policy, self._reference, self._adapters, self._objective, config)

    def _make_average(self) -> Average:
        mirror = None
        if self.config.reference == "ema":
            if self._adapters is not None:
                mirror = Mirror(self._adapters.mirror(), self._policy.optimizer.empty_partition_cache)
            else:
                named = dict(self._reference.module.named_parameters())
                mirror = Mirror(named, self._reference.optimizer.empty_partition_cache)
        kept = self._policy.device if self.config.offload == "none" else torch.device("cpu")
        return Average(master_shards(self._policy), self.config.ema_decay, mirror, kept)

    # -- learning

    def step(self, batches: StepBatch, step_index: int, demonstrations: SftBatch | None = None) -> dict[str, float]:
        """One optimizer step on this rank's share of a batch and of the demonstrations, then the average.

        The loss is the mean over the pairs or groups of the whole batch, plus `config.sft.weight` times the mean over the
        demonstrations' answer tokens. A batch without anything to learn from, which every rank sees alike, leaves policy and
        optimizer exactly as they are (no weight decay, no momentum, no demonstrations); the schedule and the average move on.

        Returns:
            The objective's statistics over the whole batch (see `objective`), sft_nll where there are demonstrations, the batch's
            facts, average_distance (L2, of the policy from its moving average, over the policy's norm) where there is one, and
            grad_norm before clipping, lr, tokens (unpadded, all ranks), pairs or groups, items, rows, skipped (1
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
        # Behind the statistics: the demonstrations' summed NLL, and the average's squared distance and the policy's squared norm.
        sums = torch.zeros(len(names) + 3, device=self._policy.device)
        grad_norm, skipped = 0.0, 0.0
        if batches.items:
            self._gradients.accumulate(batches, demonstrations, sums[:-2])
            self._policy.step()
            grad_norm = float(self._policy.get_global_grad_norm())
            skipped = float(not self._policy.was_step_applied())
        if self._average is not None:
            sums[-2:] = self._average.update(master_shards(self._policy))
        torch.distributed.all_reduce(sums)
        self.steps_done = step_index + 1
        *totals, nll, distance, norm = sums.tolist()
        metrics: dict[str, float] = {}
        if self._average is not None:
            metrics["average_distance"] = math.sqrt(distance / norm) if norm else 0.0
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

    # -- the warm start

    def warm_step(self, demonstrations: SftBatch) -> dict[str, float]:
        """One supervised step on this rank's share of demonstrations, at the rate `config.sft.warm_lr`. The average stays behind.

        Returns:
            nll (mean over the answers' tokens of the whole batch), grad_norm before clipping, and seconds.
        """
        started = time.perf_counter()
        for group in self._policy.optimizer.param_groups:
            group["lr"] = self.config.sft.warm_lr
        nll = self._gradients.imitate(demonstrations, 1.0)
        self._policy.step()
        torch.distributed.all_reduce(nll)
        self.warm_done += 1
        return {
            "nll": float(nll) / demonstrations.answer_tokens,
            "grad_norm": float(self._policy.get_global_grad_norm()),
            "seconds": time.perf_counter() - started,
        }

    def begin_game(self) -> None:
        """After a warm start: the average, and with it the reference and the sampler that read it, begins as the policy is now."""
        if self._average is not None:
            self._average.load(master_shards(self._policy))

    # -- what leaves the group

    def packed_bytes(self, dtype: str) -> int:
        """Of a version that is packed in "float32" or "bfloat16"."""
        return total_bytes(layout(self._shapes(), dtype))

    def stage(
        self, dtype: str, player: Player, version: int, step: int, destination: Destination = ORDINARY_MEMORY
    ) -> tuple[WeightManifest, NDArray[np.uint8] | None]:
        """Packs the sampler's weights on rank 0, under their Hugging Face names; a tied lm_head and buffers are left out.

        Args:
            dtype: "float32" or "bfloat16", of the packed tensors.
            player: whose weights these are.
            version: the policy version that they become.
            step: optimizer steps that they contain.
            destination: where they are packed.

        Returns:
            The manifest, without the checksum, which may not be done yet, and, on rank 0, the packed bytes.

        Raises:
            TimeoutError: a rank did not join in time.
        """
        specs, packed = self._gather_packed(dtype, destination)
        self.version = version
        return WeightManifest(player, version, specs, total_bytes(specs), "", step), packed

    def export(self, dir: Path, dtype: str) -> None:
        """Writes the sampler's weights as a Hugging Face folder that `AutoModelForCausalLM.from_pretrained` loads."""
        from learners.storage.export import write_folder

        specs, packed = self._gather_packed(dtype, Destination(deadline_s=self.config.collective_deadline_s))
        if packed is not None:
            write_folder(self.model_path, Path(dir), specs, packed)
        torch.distributed.barrier()

    def export_adapter(self, dir: Path) -> None:
        """Writes the sampler's adapters, in fp32, as a folder that PEFT loads beside the model that training started from.

        Raises:
            ValueError: every parameter is trained.
        """
        if self._adapters is None or self.config.lora is None:
            raise ValueError("there are no adapters to export")
        from learners.storage.export import write_adapter

        destination = Destination(deadline_s=self.config.collective_deadline_s)
        specs, packed = gather_packed(self._adapters.factors(), self._sampler_shards("float32"), "float32", destination)
        if packed is not None:
            named = tuple(replace(spec, name=name_for_peft(spec.name)) for spec in specs)
            write_adapter(self.model_path, Path(dir), self.config.lora, named, packed)
        torch.distributed.barrier()

    def _gather_packed(
        self, dtype: str, destination: Destination
    ) -> tuple[tuple[TensorSpec, ...], NDArray[np.uint8] | None]:
        shards, deadline = self._sampler_shards(dtype), Deadline(destination.deadline_s)
        if self._adapters is not None:
            shards = self._adapters.merge(shards, self._policy.device, deadline)
        return gather_packed(self._shapes(), shards, dtype, destination, deadline)

    def _shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        if self._adapters is not None:
            return self._adapters.shapes()
        return [(name, tuple(param.ds_shape)) for name, param in self._policy.module.named_parameters()]

    def _sampler_shards(self, dtype: str) -> Shards:
        """What is staged; already rounded where the model that computes with it holds that: half the bytes are read then."""
        cfg, device = self.config, self._policy.device
        rounded = dtype == cfg.dtype == "bfloat16" and self._adapters is None
        if cfg.sampler == "policy":
            return rounded_shards(self._policy.module, device) if rounded else master_shards(self._policy)
        if rounded and cfg.reference == "ema":
            return rounded_shards(self._reference.module, device)
        assert self._average is not None
        return self._average.read_on(device)

    # -- checkpoints

    def save(self, dir: Path) -> None:
        """Writes policy (its adapters alone, if it has some), optimizer, average, random states and position into `dir`.

        `dir` need not exist.
        """
        self._policy.save_checkpoint(
            str(dir), tag=_POLICY_TAG, save_latest=False, exclude_frozen_parameters=self._adapters is not None
        )
        shards = {} if self._average is None else self._average.shards
        state = {
            "ema": {name: shard.detach().cpu().clone() for name, shard in shards.items()},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.config.gpus_per_rank else None,
        }
        torch.save(state, dir / f"rank-{self.rank}.pt")
        written: list[Any] = [None] * self.world
        # Each rank syncs and describes what it wrote: another node's sync of it says nothing.
        torch.distributed.all_gather_object(
            written, inventory.sync_and_describe(dir, inventory.files_of(dir, self.rank))
        )
        if self.rank == 0:
            at = {"step": self.steps_done, "version": self.version, "warm": self.warm_done}
            files = {name: facts for mine in written for name, facts in mine.items()}
            checkpoints.write_meta(dir, **at, ranks=self.world, config=self.config, files=files)
        torch.distributed.barrier()

    def load(self, dir: Path) -> None:
        """Continues where `save` left off: exactly, if as many ranks wrote `dir`, else up to the order of sums. On a fresh engine.

        Raises:
            UserError: a learner with another reference, sampler or adapters wrote `dir`, or one of another model.
        """
        saved = checkpoints.read_meta(dir, self.config)
        self.steps_done, self.version, self.warm_done = saved.step, saved.version, saved.warm
        if saved.ranks != self.world:
            self._load_cut_anew(dir, saved.ranks)
            return
        loaded, _ = self._policy.load_checkpoint(str(dir), tag=_POLICY_TAG, load_module_strict=self._adapters is None)
        if loaded is None:
            raise FileNotFoundError(f"{dir}: DeepSpeed found no checkpoint {_POLICY_TAG!r} in it")
        state = torch.load(dir / f"rank-{self.rank}.pt", weights_only=True)
        if self._average is not None:
            self._average.load(state["ema"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.config.gpus_per_rank:
            torch.cuda.set_rng_state(state["cuda_rng"])
        torch.distributed.barrier()

    def _load_cut_anew(self, dir: Path, old_ranks: int) -> None:
        """`load` of another number of ranks. The random states stay those that this engine began with: no rank of it had one."""
        load_policy(self._policy, dir / _POLICY_TAG, old_ranks, self.rank, self.world)
        if self._average is not None:
            trained = {n: int(p.ds_numel) for n, p in self._policy.module.named_parameters() if p.requires_grad}
            self._average.load(load_average(dir, trained, old_ranks, self.rank, self.world))
        torch.distributed.barrier()
