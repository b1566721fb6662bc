"""The recipe's sections about vLLM: sampling parameters and engines."""

from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.recipe.sections import Fraction, NonNegative, Positive, Seconds, Section


class JudgeSamplingConfig(Section):
    """How a judge samples. `judge.kind: api`: null leaves a parameter out of the requests, for endpoints that refuse it."""

    temperature: Annotated[float, Field(gt=0.0, le=2.0)] | None = 0.6
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = 0.9
    max_new_tokens: Positive | None = 8192  # null: the server's own limit, so no budget can be kept
    seeded: bool | None = False  # as in `sampling`; an API is always sent a seed, unless this is null

    @property
    def left_out(self) -> frozenset[str]:
        """The parameters that are null."""
        return frozenset(name for name in JudgeSamplingConfig.model_fields if getattr(self, name) is None)


class SamplingConfig(JudgeSamplingConfig):
    """How both players sample. The defaults are the paper's."""

    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 0.6
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    max_new_tokens: Positive = 2048
    # true: a sample's seed derives from `run.seed`, its game and its move, so that a game can be sampled again. Off, because one
    # request with a seed switches vLLM's fused top-p sampler off for the whole step; on a CPU it costs nothing.
    seeded: bool = False


# vLLM's engine arguments that are set for the engine and cannot be given in `vllm`: by which key, or why not at all.
SET_HERE = {
    "model": "models or judge.model",
    "model_weights": "models or judge.model",
    "hf_config_path": "the model's folder",
    "tokenizer": "the model's folder, which the learner reads, too",
    "tokenizer_mode": "us, because prompts are tokenized here",
    "tokenizer_revision": "the model's folder",
    "skip_tokenizer_init": "us, because prompts are tokenized here",
    "dtype": "dtype",
    "quantization": "quantization",
    "kv_cache_dtype": "kv_cache_dtype",
    "max_model_len": "max_model_len",
    "max_num_seqs": "max_num_seqs",
    "enforce_eager": "enforce_eager",
    "tensor_parallel_size": "tensor_parallel",
    "pipeline_parallel_size": "tensor_parallel, the one way to split an engine here",
    "data_parallel_size": "workers",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "kv_cache_memory_bytes": "kv_cache_gib",
    "enable_prefix_caching": "us, because the samples of an ask share their prompt",
    "disable_log_stats": "us, because the steps of an engine are counted",
    "stream_interval": "us, for each request",
    "use_tqdm_on_load": "us",
    "worker_extension_cls": "us, for weight updates",
    "logprobs_mode": "us, for the learner's importance ratio",
    "weight_transfer_config": "us, for weight updates",
    "load_format": "us, for weight updates",
    "distributed_executor_backend": "us, by tensor_parallel",
    "enable_chunked_prefill": "us on a CPU, where a prompt in two pieces kills the engine",
}


class EngineConfig(Section):
    """A vLLM engine."""

    dtype: Literal["bfloat16", "float32", "auto"] = "auto"
    max_model_len: Positive = 5120  # tokens, prompt and completion: an attack, its answer and what stands around them
    kv_cache_gib: Annotated[float, Field(gt=0.0)] = 1.0  # CPU only
    gpu_memory_utilization: Fraction = 0.85  # GPU only
    tensor_parallel: Positive = 1
    max_num_seqs: Positive = 128
    enforce_eager: bool = True  # CPU: a compiled graph saves nothing on a tiny model and costs seconds at start
    threads: Positive = 1  # OpenMP threads of an engine on the CPU
    start_deadline_s: Seconds = 300.0
    # By vLLM's name, as in fp8; null: as the folder says. A judge's alone: players are pushed whole, unquantized weights.
    quantization: str | None = None
    # By vLLM's name. fp8 holds twice the tokens of bfloat16; a player's log-probabilities are then those of the rounded cache. On a
    # CPU it needs AVX-512 or AMX.
    kv_cache_dtype: str = "auto"
    # Further arguments of vLLM's AsyncEngineArgs, by name, as they are.
    vllm: dict[str, Any] = Field(default_factory=dict)


class BackpressureConfig(Section):
    """The limit of open games follows the engines' load: additive increase, multiplicative decrease (AIMD)."""

    increase: Positive = 8  # games more after a report in which every engine has room
    cut: Annotated[float, Field(gt=0.0, lt=1.0)] = (
        0.5  # the limit is multiplied by this when an engine preempted a request
    )
    kv_high: Fraction = 0.9  # share of an engine's KV cache in use above which the limit no longer grows
    queue_high: Annotated[int, Field(ge=0)] = 16  # requests that wait in an engine, above which it no longer grows
    every_s: Seconds = 1.0  # between two reports


class GenerationConfig(EngineConfig):
    """The vLLM engine of each player's generation workers."""

    workers: Positive = 1  # for each player
    cpus_per_worker: NonNegative = 0.5
    gpus_per_worker: NonNegative = 0.0
    deadline_s: Seconds = 300.0  # for one request
    backpressure: BackpressureConfig | None = BackpressureConfig()  # null: only staleness bounds the open games
