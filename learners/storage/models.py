"""Is a folder a model that the learners and vLLM can both start from? Looks at names, JSON and headers; loads nothing heavy."""

import json
from pathlib import Path
from typing import Any

from learners.storage.weight_files import check_weights, list_weights
from protocol.errors import UserError

# Under one of these a config counts its experts.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts")


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return False
    try:
        return bool(json.loads(settings.read_text()).get("chat_template"))
    except (ValueError, AttributeError):
        return False


def read_config(folder: Path, where: str) -> dict[str, Any]:
    """A model folder's `config.json`.

    Raises:
        UserError: there is none, or it is no JSON object.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{where}: {folder} has no config.json; give a folder that save_pretrained() wrote")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{where}: {folder}/config.json is no JSON object; give a folder that save_pretrained() wrote")
    return config


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """What a config says of the language model: in a folder that also sees or hears it is a part of its own."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def check_model_folder(path: str, where: str, trained: bool = False) -> None:
    """Raises `UserError` unless `path` is a Hugging Face folder with config, whole weights, tokenizer and chat template.

    Args:
        path: the folder.
        where: the recipe key that named it, for the message.
        trained: whether a learner starts from it and pushes to vLLM: its weights must not be quantized, and no experts.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{where}: {path} is not a folder; give a local Hugging Face model folder, or `sandbox`")
    config = read_config(folder, where)
    if trained:
        _check_trainable(config, path, where)
    weights = list_weights(folder)
    if not weights or any(_is_pointer(file) for file in weights):
        raise UserError(
            f"{where}: {path} has no weights (model*.safetensors or pytorch_model*.bin); add them, or fetch them with "
            "git lfs pull"
        )
    check_weights(folder, where)
    names = {entry.name for entry in folder.iterdir()}
    if not ({"tokenizer.json", "tokenizer.model"} & names or {"vocab.json", "merges.txt"} <= names):
        raise UserError(
            f"{where}: {path} has no tokenizer (tokenizer.json or tokenizer.model); copy it from the base model"
        )
    if not _has_chat_template(folder):
        raise UserError(
            f"{where}: {path} has no chat template; add chat_template.jinja or `chat_template` in tokenizer_config.json"
        )


def _check_trainable(config: dict[str, Any], path: str, where: str) -> None:
    if config.get("quantization_config") is not None:
        raise UserError(
            f"{where}: {path} is quantized (quantization_config in its config.json), and quantized weights cannot be trained; give "
            "the unquantized model, or set the player's train to false"
        )
    text = text_config(config)
    for key in EXPERTS:
        if isinstance(text.get(key), int) and text[key] > 1:
            raise UserError(
                f"{where}: {path} is a mixture of experts ({key} {text[key]} in its config.json), whose experts the learner keeps "
                "under other names and shapes than vLLM loads, so that a push would not fit; give a dense model, or set the "
                "player's train to false"
            )


def _is_pointer(file: Path) -> bool:
    """Whether git-lfs has left its pointer where the weights should be."""
    with file.open("rb") as f:
        return f.read(24) == b"version https://git-lfs."
