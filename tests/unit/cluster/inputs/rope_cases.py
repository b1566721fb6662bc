"""Llama configs with every kind of rotary scaling, and the tokens that vLLM 0.32 takes with each."""

from typing import Any

LLAMA: dict[str, Any] = {"model_type": "llama", "max_position_embeddings": 2048, "rope_theta": 10_000.0}


def _llama(**rope: Any) -> dict[str, Any]:
    return LLAMA | {"rope_scaling": rope}


CASES: dict[str, tuple[dict[str, Any], int]] = {
    "none": (LLAMA, 2048),
    "null": (LLAMA | {"rope_scaling": None}, 2048),
    "linear": (_llama(rope_type="linear", factor=4.0), 8192),
    "linear by its old key": (_llama(type="linear", factor=2.5), 5120),
    "dynamic": (_llama(rope_type="dynamic", factor=2.0), 4096),
    "dynamic by its old key": (_llama(type="dynamic", factor=2.0), 4096),
    "default": (_llama(rope_type="default"), 2048),
    "new key": (
        {
            "model_type": "llama",
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
        },
        8192,
    ),
    "yarn": (_llama(rope_type="yarn", factor=4.0, original_max_position_embeddings=512), 2048),
    "llama3": (
        _llama(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=256,
        ),
        2048,
    ),
}
