"""What an engine is built with, and how vLLM's answer becomes a Completion. No vLLM is started or imported."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from actors.engine.arguments import engine_arguments, prepare_environment
from actors.engine.engine import limit_new_tokens, to_completion
from actors.errors import PromptTooLong
from protocol.recipe import SET_HERE, EngineConfig, GenerationConfig


@pytest.mark.parametrize(("prompt", "wanted", "room"), [(10, 50, 50), (60, 50, 40), (99, 50, 1)])
def test_a_long_prompt_leaves_less_to_sample(prompt: int, wanted: int, room: int) -> None:
    assert limit_new_tokens(prompt, 100, wanted) == room


@pytest.mark.parametrize("prompt", [100, 500])
def test_a_prompt_without_room_says_so(prompt: int) -> None:
    with pytest.raises(PromptTooLong, match=f"{prompt} tokens leaves no room in generation.max_model_len 100"):
        limit_new_tokens(prompt, 100, 50)


def output(**changes: Any) -> SimpleNamespace:
    fields = {
        "token_ids": [5, 6, 2],
        "logprobs": [
            {5: SimpleNamespace(logprob=-1.0)},
            {6: SimpleNamespace(logprob=-0.5)},
            {2: SimpleNamespace(logprob=-2)},
        ],
        "text": "a b",
        "finish_reason": "stop",
        "weight_versions": [SimpleNamespace(version="3"), SimpleNamespace(version="4")],
    }
    return SimpleNamespace(**{**fields, **changes})


def test_a_completion_carries_ids_logprobs_and_the_versions_of_its_ends() -> None:
    c = to_completion([1, 9], output())
    assert [list(x) for x in (c.prompt_ids, c.token_ids, c.logprobs)] == [[1, 9], [5, 6, 2], [-1.0, -0.5, -2.0]]
    assert c.text == "a b"
    assert (c.finish, c.first_version, c.last_version) == ("stop", 3, 4)


@pytest.mark.parametrize(
    ("ended", "short_of_room", "finish"),
    [("length", False, "length"), ("length", True, "no_room"), ("stop", True, "stop")],
)
def test_what_the_context_cut_short_is_told_from_what_was_too_long(
    ended: str, short_of_room: bool, finish: str
) -> None:
    assert to_completion([1], output(finish_reason=ended), short_of_room=short_of_room).finish == finish


@pytest.mark.parametrize(
    "change", [{"finish_reason": "abort"}, {"weight_versions": None}, {"logprobs": []}, {"logprobs": None}]
)
def test_an_answer_that_is_none_is_an_error_not_a_completion(change: dict[str, Any]) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        to_completion([1], output(**change))


def test_on_a_cpu_the_environment_binds_threads_and_compiles_nothing() -> None:
    environ: dict[str, str] = {"VLLM_LOGGING_LEVEL": "DEBUG"}
    prepare_environment(GenerationConfig(threads=2, start_deadline_s=90), cuda=False, environ=environ)
    assert environ["OMP_NUM_THREADS"] == "2" and environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert environ["TORCH_COMPILE_DISABLE"] == "1" and environ["VLLM_ENGINE_READY_TIMEOUT_S"] == "90"
    assert environ["VLLM_LOGGING_LEVEL"] == "DEBUG"  # the user's choice stands


def test_on_a_gpu_threads_and_compilation_are_left_alone() -> None:
    environ: dict[str, str] = {}
    prepare_environment(GenerationConfig(), cuda=True, environ=environ)
    assert environ.keys().isdisjoint({"OMP_NUM_THREADS", "TORCH_COMPILE_DISABLE", "VLLM_CPU_OMP_THREADS_BIND"})
    assert environ["VLLM_LOGGING_LEVEL"] == "WARNING"


def test_cpu_and_gpu_engines_differ_in_memory_and_executor_only() -> None:
    config = GenerationConfig(kv_cache_gib=0.5, gpu_memory_utilization=0.7)
    cpu, gpu = engine_arguments("/m", config, cuda=False), engine_arguments("/m", config, cuda=True)
    assert cpu["kv_cache_memory_bytes"] == 1 << 29 and gpu["gpu_memory_utilization"] == 0.7
    assert cpu["distributed_executor_backend"].endswith("UniProcExecutor")  # one process less
    shared = cpu.keys() & gpu.keys()
    assert all(cpu[k] == gpu[k] for k in shared)
    assert cpu.keys() ^ gpu.keys() == {
        "kv_cache_memory_bytes",
        "gpu_memory_utilization",
        "load_format",
        "enable_chunked_prefill",
        "max_num_batched_tokens",
        "distributed_executor_backend",
    }


def test_a_judges_engine_takes_no_weights_and_reports_no_logprobs() -> None:
    player = engine_arguments("/m", GenerationConfig(), cuda=False)
    judge = engine_arguments("/m", EngineConfig(), cuda=False, updatable=False)
    assert player.keys() - judge.keys() == {"weight_transfer_config", "logprobs_mode", "load_format"}
    assert judge["enable_prefix_caching"]
    assert to_completion([1], output(logprobs=None), with_logprobs=False).logprobs.tolist() == []


def test_a_recipe_adds_vllms_arguments_and_overrides_none_of_ours() -> None:
    judge = EngineConfig(quantization="fp8", kv_cache_dtype="fp8", vllm={"block_size": 32, "model": "/other"})
    made = engine_arguments("/m", judge, cuda=True, updatable=False)
    assert (made["quantization"], made["kv_cache_dtype"], made["block_size"], made["model"]) == ("fp8", "fp8", 32, "/m")
    plain = engine_arguments("/m", GenerationConfig(), cuda=True)
    assert "quantization" not in plain and plain["kv_cache_dtype"] == "auto"


@pytest.mark.parametrize("wanted", [1024, 9000])
def test_on_a_cpu_a_step_has_room_for_the_longest_prompt_whatever_the_recipe_says(wanted: int) -> None:
    """A prompt in two pieces kills the engine there."""
    config = GenerationConfig(max_model_len=5120, vllm={"max_num_batched_tokens": wanted})
    assert engine_arguments("/m", config, cuda=False)["max_num_batched_tokens"] == max(5120, wanted)
    assert engine_arguments("/m", config, cuda=True)["max_num_batched_tokens"] == wanted


def test_every_argument_that_is_set_here_is_refused_in_a_recipe() -> None:
    for cuda, updatable, parallel in itertools.product((True, False), (True, False), (1, 2)):
        config = EngineConfig(quantization="fp8", tensor_parallel=parallel)
        made = engine_arguments("/m", config, cuda, updatable).keys()
        assert made - {"max_num_batched_tokens"} <= SET_HERE.keys()


def test_tensor_parallel_engines_run_their_own_processes() -> None:
    assert (
        engine_arguments("/m", GenerationConfig(tensor_parallel=2), cuda=True)["distributed_executor_backend"] == "mp"
    )
