"""What a recipe says in vLLM's own words is checked against the vLLM that is installed, in one line, before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from cluster.inputs import engine_options
from cluster.inputs.engine_options import check_engine, read_options
from cluster.inputs.find import find_inputs, find_judge
from protocol.errors import UserError
from protocol.recipe import EngineConfig, parse_recipe

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"vllm": {"max_num_batched_token": 4096}},
        r"^judge\.engine\.vllm\.max_num_batched_token: vLLM 0\.\S+ has no such engine argument; "
        r"did you mean max_num_batched_tokens\?$",
    ),
    (
        {"vllm": {"block_size": "many", "max_num_batched_tokens": "many"}},
        r"judge\.engine\.vllm\.max_num_batched_tokens: 'many' is not what vLLM 0\.\S+ takes, which is int or null; correct it$",
    ),
    ({"vllm": {"trust_remote_code": 1}}, r"trust_remote_code: 1 is not what vLLM 0\.\S+ takes, which is bool"),
    ({"quantization": "fp9"}, r"^judge\.engine\.quantization: 'fp9' is nothing that vLLM 0\.\S+ knows; did you mean"),
    (
        {"kv_cache_dtype": "fp9"},
        r"^judge\.engine\.kv_cache_dtype: 'fp9' is nothing that vLLM 0\.\S+ knows; did you mean",
    ),
]
ACCEPTED: list[dict[str, Any]] = [
    {},
    {"quantization": "fp8"},
    {"quantization": "fp8", "kv_cache_dtype": "fp8_e4m3"},
    {"vllm": {"max_num_batched_tokens": 4096}},
    {"vllm": {"max_num_batched_tokens": None, "trust_remote_code": False, "compilation_config": {"level": 0}}},
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[str(v) for v, _ in REFUSED])
def test_what_vllm_would_refuse_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_engine("judge.engine", EngineConfig(**values), gpus=1)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("values", ACCEPTED, ids=str)
def test_what_vllm_takes_is_accepted(values: dict[str, Any]) -> None:
    check_engine("judge.engine", EngineConfig(**values), gpus=1)


@pytest.mark.parametrize(("flags", "fits"), [("fpu avx2", False), ("fpu avx2 avx512f", True), ("fpu amx_tile", True)])
def test_an_fp8_cache_on_a_cpu_needs_its_instructions(
    flags: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(engine_options, "CPU_INFO", info)
    config = EngineConfig(kv_cache_dtype="fp8")
    check_engine("generation", config, gpus=1)
    if fits:
        check_engine("generation", config, gpus=0)
        return
    with pytest.raises(UserError, match=r"^generation\.kv_cache_dtype: fp8 on a CPU needs AVX-512 or AMX"):
        check_engine("generation", config, gpus=0)


def test_both_engines_of_a_recipe_are_checked_before_anything_is_built() -> None:
    wrong = {"vllm": {"no_such_thing_at_all": 1}}
    with pytest.raises(UserError, match=r"generation\.vllm\.no_such_thing_at_all"):
        find_inputs(parse_recipe({"generation": wrong}), pytest.fail)
    with pytest.raises(UserError, match=r"judge\.engine\.vllm\.no_such_thing_at_all"):
        find_judge(parse_recipe({"judge": {"kind": "lm", "engine": wrong}}), pytest.fail)


def test_vllm_is_not_imported_for_it() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from cluster.inputs.engine_options import read_options; o = read_options(); "
        "assert o and 'model' in o.arguments and 'vllm' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_where_there_is_no_vllm_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_options, "read_options", lambda: None)
    check_engine("generation", EngineConfig(vllm={"no_such_thing_at_all": 1}), gpus=1)


def test_the_types_are_read_where_they_are_simple() -> None:
    options = read_options()
    assert options is not None
    assert options.arguments["max_model_len"] == (int,)
    assert options.arguments["enable_log_requests"] == (bool,)  # of the subclass
    assert options.arguments["hf_token"] == (bool, str, type(None))
    assert options.arguments["weight_transfer_config"] is None
