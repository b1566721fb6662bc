"""Hugging Face folders from packed weights and the folder that training started from: a whole model, or a PEFT adapter.

Runs on one rank. Written whole or not at all (`protocol.files`). What is exported stops where it stopped in the games: at the ends
of the tokenizer and of the base's generation config. It does not know where the weights came from, and writes no model card: what
a model is worth is not known yet.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learners.storage.base import read_base
from protocol.files import make_folder
from protocol.packed import tensor_at
from protocol.recipe import LoraConfig
from protocol.types import TensorSpec

# Everything that describes the model and its tokenizer, but no weights: those come from the packed buffer.
_COPIED_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".tiktoken"}
# Written anew, or about the base and not about what came of it. With an adapter's config in it, a model folder loads as an adapter.
_LEFT = {"config.json", "generation_config.json", "adapter_config.json", "promotion.json", "trainer_state.json"}
_TEMPLATE, _MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"  # as transformers 5 writes them


def write_folder(source: Path, target: Path, tensors: Sequence[TensorSpec], packed: Any) -> None:
    """Writes a model to `target`, replacing an earlier export of that name.

    Args:
        source: the folder whose configuration, tokenizer and chat template are taken over.
        target: the folder to make.
        tensors: what lies where in `packed`, all of one dtype.
        packed: uint8.
    """
    with make_folder(target, replace=True) as draft:
        _copy_words(source, draft)
        dtype = tensors[0].dtype
        config = _read_json(source / "config.json")
        for key in {"dtype", "torch_dtype"} & config.keys() or {"dtype"}:
            config[key] = dtype
        _write_json(draft / "config.json", config)
        generation = _read_json(source / "generation_config.json")
        _write_json(draft / "generation_config.json", generation | _ends(source, generation, config))
        _save(draft / "model.safetensors", tensors, packed)


def write_adapter(source: Path, target: Path, lora: LoraConfig, tensors: Sequence[TensorSpec], packed: Any) -> None:
    """Writes a PEFT adapter to `target`, replacing an earlier one. Arguments as `write_folder`.

    Args:
        lora: what the adapters were made by.
        tensors: under PEFT's names.
    """
    with make_folder(target, replace=True) as draft:
        _copy_words(source, draft)
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": read_base(source).name,
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "target_modules": list(lora.targets),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        }
        _write_json(draft / "adapter_config.json", config)
        _save(draft / "adapter_model.safetensors", tensors, packed)


def _copy_words(source: Path, draft: Path) -> None:
    """Tokenizer, chat templates and license. A template that stands only in the tokenizer's settings gets its file as well."""
    for path in source.iterdir():
        named = path.suffix in _COPIED_SUFFIXES and not path.name.endswith(".index.json") and path.name not in _LEFT
        if path.is_file() and (named or path.name.upper().startswith("LICENSE")):
            shutil.copyfile(path, draft / path.name)
    if (source / _MORE_TEMPLATES).is_dir():
        shutil.copytree(source / _MORE_TEMPLATES, draft / _MORE_TEMPLATES)
    template = _read_json(source / "tokenizer_config.json").get("chat_template")
    if isinstance(template, str) and not (draft / _TEMPLATE).exists():
        (draft / _TEMPLATE).write_text(template, encoding="utf-8")


def _ends(source: Path, generation: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """`eos_token_id` and `pad_token_id` of a generation config.

    vLLM ends a completion at the tokenizer's end too, transformers' `generate` only at those that are listed here.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    listed = generation.get("eos_token_id", config.get("eos_token_id"))
    known = [tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])]
    ends = [end for end in dict.fromkeys(known) if end is not None]
    if not ends:
        return {}
    pads = (generation.get("pad_token_id"), tokenizer.pad_token_id, ends[0])
    pad = next(pad for pad in pads if pad is not None)
    return {"eos_token_id": ends[0] if len(ends) == 1 else ends, "pad_token_id": pad}


def _read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return value


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _save(file: Path, tensors: Sequence[TensorSpec], packed: Any) -> None:
    import torch
    from safetensors.torch import save_file

    whole = torch.from_numpy(packed)
    named = {spec.name: tensor_at(whole, spec, getattr(torch, spec.dtype)) for spec in tensors}
    save_file(named, file, metadata={"format": "pt"})
