"""Is a folder a model that the learners and vLLM can both start from? Looks at names and one JSON file; loads nothing heavy."""

import json
from pathlib import Path

from protocol.errors import UserError


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


def check_model_folder(path: str, where: str, trained: bool = False) -> None:
    """Raises `UserError` unless `path` is a Hugging Face folder with config, weights, tokenizer and chat template.

    Args:
        path: the folder.
        where: the recipe key that named it, for the message.
        trained: whether a learner starts from it: its weights must not be quantized.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{where}: {path} is not a folder; give a local Hugging Face model folder, or `sandbox`")
    if not (folder / "config.json").is_file():
        raise UserError(f"{where}: {path} has no config.json; give a folder that save_pretrained() wrote")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{where}: {path}/config.json is no JSON object; give a folder that save_pretrained() wrote")
    if trained and config.get("quantization_config") is not None:
        raise UserError(
            f"{where}: {path} is quantized (quantization_config in its config.json), and quantized weights cannot be trained; give "
            "the unquantized model, or set the player's train to false"
        )
    weights = [*folder.glob("*model*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if not weights or any(_is_pointer(file) for file in weights):
        raise UserError(
            f"{where}: {path} has no weights (model*.safetensors or pytorch_model*.bin); add them, or fetch them with "
            "git lfs pull"
        )
    names = {entry.name for entry in folder.iterdir()}
    if not ({"tokenizer.json", "tokenizer.model"} & names or {"vocab.json", "merges.txt"} <= names):
        raise UserError(
            f"{where}: {path} has no tokenizer (tokenizer.json or tokenizer.model); copy it from the base model"
        )
    if not _has_chat_template(folder):
        raise UserError(
            f"{where}: {path} has no chat template; add chat_template.jinja or `chat_template` in tokenizer_config.json"
        )


def _is_pointer(file: Path) -> bool:
    """Whether git-lfs has left its pointer where the weights should be."""
    with file.open("rb") as f:
        return f.read(24) == b"version https://git-lfs."
