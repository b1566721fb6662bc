"""How many tokens a model folder says that it takes, by the rule that vLLM has for it (0.32, `_get_and_verify_max_len`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from learners.storage.models import read_config, text_config
from protocol.errors import UserError

LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_target_positions", "max_sequence_length", "max_seq_length", "seq_len"),
)
# Their configs hold the stretched length already, so their factor is not applied to it.
STRETCHED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def length_of(config: dict[str, Any]) -> int | None:
    """Tokens of prompt and completion. None: the config does not say, and vLLM takes what it is told."""
    text = text_config(config)
    known = [text[key] for key in LENGTHS if _is_number(text.get(key))]
    if not known:
        return None
    limit = text["model_max_length"] if _is_number(text.get("model_max_length")) else min(known)
    factor: float = 1.0
    if "gemma3" not in str(text.get("model_type")):
        for rope in _ropes(text):
            kind, stretch = rope.get("rope_type", rope.get("type")), rope.get("factor")
            if kind not in STRETCHED and isinstance(stretch, int | float):
                factor = stretch
    return int(limit * factor)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ropes(text: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings of the rotary embeddings: one for all layers, or one for each kind of layer; under the old key or the new."""
    for key in ("rope_scaling", "rope_parameters"):
        named = text.get(key)
        if not isinstance(named, dict):
            continue
        kinds = [rope for rope in named.values() if isinstance(rope, dict)]
        yield from kinds or [named]


def check_length(folder: str, wanted: int, where: str, limits: str) -> None:
    """A model must be able to hold what the engine is told to serve: `wanted` tokens, the value of the key `limits`.

    Raises:
        UserError: it takes fewer.
    """
    limit = length_of(read_config(Path(folder), where))
    if limit is not None and limit < wanted:
        raise UserError(
            f"{where}: {folder} takes {limit} tokens, {limits} asks for {wanted}; set {limits} to at most {limit}"
        )
