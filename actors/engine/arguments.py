"""From a recipe's `generation` or `judge.engine` section to vLLM's settings: environment and arguments. Imports no vLLM.

Start-up costs on 2 cores are decided here: one process less (the engine's worker lives in EngineCore), no compilation,
no warm-up pass.
"""

import os
import tempfile
from collections.abc import MutableMapping
from typing import Any

from protocol.recipe import EngineConfig

BACKEND = "host"  # under which the transfer engine is registered with vLLM
CPU_LOAD_FORMAT = "advgame-plain"
GIB = 1 << 30
IPC_FOLDER_BYTES = (
    107 - 37
)  # of a socket's path, less the name that vLLM gives it; a long TMPDIR would end every engine
BATCHED_TOKENS = 2048  # of one engine step on the CPU; vLLM's own default


def prepare_environment(config: EngineConfig, cuda: bool, environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets what vLLM and its child processes read from the environment. Call before vllm is imported.

    A level of logging that the user chose is kept.
    """
    environ.setdefault(
        "VLLM_LOGGING_LEVEL", "WARNING" if cuda else "ERROR"
    )  # CPU: the warnings are about hardware that is not there
    environ["VLLM_NO_USAGE_STATS"] = "1"
    environ["DO_NOT_TRACK"] = "1"
    environ["VLLM_WORKER_MULTIPROC_METHOD"] = (
        "spawn"  # an engine starts beside other threads, which a fork may deadlock
    )
    environ["VLLM_ENGINE_READY_TIMEOUT_S"] = str(max(1, int(config.start_deadline_s)))
    environ.setdefault("HF_HUB_OFFLINE", "1")  # a model is a folder here; a look-up would only wait for a network
    if len(os.fsencode(tempfile.gettempdir())) > IPC_FOLDER_BYTES:
        environ.setdefault("VLLM_RPC_BASE_PATH", "/tmp")
    if not cuda:
        environ["OMP_NUM_THREADS"] = str(config.threads)
        environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # several engines share the cores
        environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        if config.enforce_eager:
            # vLLM's sampler is compiled on its own account: 20 s inside the first request, and nothing gained on a CPU.
            environ["TORCH_COMPILE_DISABLE"] = "1"


def engine_arguments(model_path: str, config: EngineConfig, cuda: bool, updatable: bool = True) -> dict[str, Any]:
    """Keyword arguments of `vllm.AsyncEngineArgs`.

    Args:
        updatable: whether the engine takes new weights while it serves; a judge's does not.
    """
    arguments: dict[str, Any] = {
        **config.vllm,  # first: what is set below stands
        "model": model_path,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel,
        "enable_prefix_caching": True,  # the samples of an ask share their prompt, a judge's asks their rubric
        "disable_log_stats": True,  # no lines in a log; steps are counted all the same (`occupancy`)
        "kv_cache_dtype": config.kv_cache_dtype,
        "use_tqdm_on_load": False,
        # Also where no weights are transferred: its module ends the engine's processes with the actor that started them.
        "worker_extension_cls": "actors.weights.host_transfer.HostTransferExtension",
    }
    if config.quantization is not None:
        arguments["quantization"] = config.quantization
    if updatable:
        arguments["logprobs_mode"] = "raw_logprobs"  # before temperature and top-p: for the learner's importance ratio
        arguments["weight_transfer_config"] = {"backend": BACKEND}
    if config.tensor_parallel > 1:
        arguments["distributed_executor_backend"] = (
            "mp"  # inside a Ray actor vLLM would otherwise ask Ray for more actors
        )
    if cuda:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        return arguments
    arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * GIB)  # explicit and eager: vLLM skips its warm-up
    if updatable:
        arguments["load_format"] = (
            CPU_LOAD_FORMAT  # a judge's weights stay as loaded, and repacked ones are 10 % faster
        )
    # A chunk of a prompt whose request has a seed kills vLLM's engine on a CPU: it rewinds the request's random generator by an
    # offset, which CPU generators do not have. So prompts are taken whole, and a step must have room for the longest.
    arguments["enable_chunked_prefill"] = False
    arguments["max_num_batched_tokens"] = max(
        config.max_model_len, BATCHED_TOKENS, config.vllm.get("max_num_batched_tokens", 0)
    )
    if config.tensor_parallel == 1:
        # By its full name, because on a CPU vLLM turns "uni" into "mp" to bind OpenMP threads, which we do not want. It saves
        # the spawn and imports of a third process, half of a start's CPU seconds (31 -> 17).
        arguments["distributed_executor_backend"] = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
    return arguments
