"""How many tokens a folder takes. The numbers are vLLM 0.32's; tests/integration asks vLLM itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.inputs.context_length import check_length, length_of
from protocol.errors import UserError
from tests.unit.cluster.inputs.rope_cases import CASES


@pytest.mark.parametrize(("config", "tokens"), CASES.values(), ids=CASES)
def test_the_length_of_a_config(config: dict[str, Any], tokens: int) -> None:
    assert length_of(config) == tokens


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({}, None),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 8192, "model_max_length": 131_072}, 131_072),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"max_position_embeddings": 512, "rope_scaling": "none"}, 512),
        ({"max_position_embeddings": True}, None),
    ],
)
def test_other_keys_and_places(config: dict[str, Any], tokens: int | None) -> None:
    assert length_of(config) == tokens


def test_a_model_that_is_too_short_is_refused_with_both_numbers(tmp_path: Path) -> None:
    linear = {"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}}
    (tmp_path / "config.json").write_text(json.dumps(linear))
    check_length(str(tmp_path), 8192, "models.attacker.path", "generation.max_model_len")
    with pytest.raises(
        UserError, match=r"^models\.attacker\.path: \S+ takes 8192 tokens, generation\.max_model_len asks for"
    ):
        check_length(str(tmp_path), 8193, "models.attacker.path", "generation.max_model_len")
