"""A Hugging Face folder from packed weights and the folder that training started from. Runs on one rank.

Written whole or not at all (`protocol.files`). It does not know where the weights came from.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protocol.files import make_folder
from protocol.packed import tensor_at
from protocol.types import TensorSpec

# Everything that describes the model and its tokenizer, but no weights: those come from the packed buffer.
_COPIED_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".tiktoken"}


def _is_copied(path: Path) -> bool:
    named = path.suffix in _COPIED_SUFFIXES and not path.name.endswith(".index.json")
    return path.is_file() and path.name != "config.json" and (named or path.name.upper().startswith("LICENSE"))


def write_folder(source: Path, target: Path, tensors: Sequence[TensorSpec], packed: Any) -> None:
    """Writes `target`, replacing an earlier export of that name.

    Args:
        source: the folder whose configuration, tokenizer and chat template are taken over.
        target: the folder to make.
        tensors: what lies where in `packed`, all of one dtype.
        packed: uint8.
    """
    with make_folder(target, replace=True) as draft:
        _write(source, draft, tensors, packed)


def _write(source: Path, draft: Path, tensors: Sequence[TensorSpec], packed: Any) -> None:
    import torch
    from safetensors.torch import save_file

    for path in source.iterdir():
        if _is_copied(path):
            shutil.copyfile(path, draft / path.name)
    dtype = tensors[0].dtype
    config = json.loads((source / "config.json").read_text())
    for key in {"dtype", "torch_dtype"} & config.keys() or {"dtype"}:
        config[key] = dtype
    (draft / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    whole = torch.from_numpy(packed)
    named = {spec.name: tensor_at(whole, spec, getattr(torch, dtype)) for spec in tensors}
    save_file(named, draft / "model.safetensors", metadata={"format": "pt"})
