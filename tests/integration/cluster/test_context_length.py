"""vLLM's own rule for a model's length, against ours, which needs neither vLLM nor its ten seconds."""

from typing import Any

import pytest

from cluster.inputs.context_length import length_of
from tests.unit.cluster.inputs.rope_cases import CASES


@pytest.mark.parametrize(("config", "tokens"), CASES.values(), ids=CASES)
def test_vllm_takes_the_same_length(config: dict[str, Any], tokens: int) -> None:
    from transformers import AutoConfig
    from vllm.config.model import _get_and_verify_max_len
    from vllm.transformers_utils.config import patch_rope_parameters
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    settings = dict(config)
    built = AutoConfig.for_model(settings.pop("model_type"), **settings)
    patch_rope_parameters(built)
    found = _get_and_verify_max_len(
        hf_config=built,
        model_arch_config=ModelArchConfigConvertorBase(built, built).convert(),
        tokenizer_config=None,
        max_model_len=None,
        disable_sliding_window=False,
        sliding_window=None,
    )
    assert found == tokens == length_of(config)
