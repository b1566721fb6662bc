"""Models under DeepSpeed ZeRO-3, on a CPU (gloo) or a GPU (nccl): how they are loaded, configured and wrapped.

`offload: optimizer` keeps fp32 masters and Adam's moments in the CPU's memory and steps there; `all` the partitions of both models
too, and each partition is fetched for its layer. The optimizer is torch's own in every case: DeepSpeed's CPU one is C++ that each
machine compiles at start, and torch's fused AdamW has a vectorised CPU kernel.

It does not know what is trained or averaged: that is `engine`.
"""

import os
import warnings
from typing import Any

import torch

from protocol.errors import UserError
from protocol.recipe import LearnerConfig


def prepare_deepspeed(config: LearnerConfig) -> None:
    """Loads DeepSpeed, quietly, and joins the process group if nobody has."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if config.gpus_per_rank else "cpu")
    import deepspeed
    from deepspeed.utils import logger as deepspeed_logger

    # Only DeepSpeed inference uses this operator, and making it costs half a minute of C++ on a fresh machine.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed_logger.setLevel("WARNING")
    # DeepSpeed 0.19 calls torch's old collective names, once for every parameter.
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    deepspeed.init_distributed("nccl" if config.gpus_per_rank else "gloo")


def load_partitioned(path: str, config: LearnerConfig) -> Any:
    """A Hugging Face model, partitioned while it is read, so that no rank ever holds a whole one."""
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import HfDeepSpeedConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    partition_while_loading = HfDeepSpeedConfig(_settings(config, 0))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, config.dtype))
    del partition_while_loading  # its mere existence switches transformers to ZeRO-3
    return model


def recompute_activations(model: Any) -> None:
    """Keeps the layers' inputs alone for the backward.

    Raises:
        UserError: the model cannot.
    """
    if not model.supports_gradient_checkpointing:
        raise UserError(
            f"learners.*.activation_checkpointing: true, and {type(model).__name__} has no support for it in transformers; "
            "set it to false"
        )
    model.gradient_checkpointing_enable({"use_reentrant": False})


def wrap_for_training(model: Any, config: LearnerConfig) -> Any:
    """An engine that trains the parameters which require a gradient, with AdamW over fp32 master shards."""
    import deepspeed

    optimizer = torch.optim.AdamW(
        [param for param in model.parameters() if param.requires_grad],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )
    settings = _settings(config, config.stage3_param_persistence_threshold) | {"gradient_clipping": config.clip}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    return engine


def wrap_for_inference(model: Any, config: LearnerConfig) -> Any:
    """An engine that only computes."""
    import deepspeed

    # A persistent parameter would keep serving the values of its first gather: all of them stay partitioned.
    engine, *_ = deepspeed.initialize(model=model, config=_settings(config, 0))
    return engine


def _settings(config: LearnerConfig, persistence_threshold: int) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": 3, "stage3_param_persistence_threshold": persistence_threshold}
    to_cpu = {"device": "cpu", "pin_memory": config.gpus_per_rank > 0}
    if config.offload != "none":
        zero["offload_optimizer"] = to_cpu
    if config.offload == "all":
        zero["offload_param"] = to_cpu
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,  # a step marks its boundary itself: micro-batches differ from step to step
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
    }
