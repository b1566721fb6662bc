"""Are the weights in a model folder whole? Reads indexes and headers, never a tensor: milliseconds, whatever the model's size.

A copy that broke off leaves a file that is too short or a shard that is missing. transformers and vLLM find that out too, minutes
later and in many lines.
"""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from protocol.errors import UserError

Shapes = dict[str, tuple[int, ...]]

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
AGAIN = "copy or download it again"
_SHARD = re.compile(r"-\d+-of-\d+\.(safetensors|bin)$")
_LENGTH_BYTES = 8  # of a safetensors file's header, little-endian, at its beginning


def list_weights(folder: Path) -> list[Path]:
    """The files of weights, safetensors first."""
    return [*sorted(folder.glob("*model*.safetensors")), *sorted(folder.glob("pytorch_model*.bin"))]


def check_weights(folder: Path, where: str) -> Shapes:
    """The tensors' names and shapes, as the headers say. Empty where the weights are no safetensors.

    Raises:
        UserError: an index names what is not there, or a file is not whole.
    """
    files = list_weights(folder)
    held = {file.name: _read_header(file, where) for file in files if file.suffix == ".safetensors"}
    for file in files:
        if file.suffix == ".bin":
            _check_pickle(file, where)
    indexes = [folder / name for name in INDEXES if (folder / name).is_file()]
    for index in indexes:
        _check_index(index, held, where)
    shards = [file.name for file in files if _SHARD.search(file.name)]
    if shards and len(shards) == len(files) and not indexes:
        raise UserError(f"{where}: {folder} holds {shards[0]} and no index of its shards ({INDEXES[0]}); {AGAIN}")
    return {name: shape for shapes in held.values() for name, shape in shapes.items()}


def _check_index(index: Path, held: dict[str, Shapes], where: str) -> None:
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        named = sorted(set(placed.values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{where}: {index} is no index of shards; {AGAIN}") from None
    missing = [name for name in named if not (index.parent / str(name)).is_file()]
    if missing:
        raise UserError(
            f"{where}: {index} names {len(named)} files, of which {len(missing)} are not there: {_list(missing)}; "
            "copy or download them"
        )
    lost = [tensor for tensor, file in placed.items() if file in held and tensor not in held[file]]
    if lost:
        raise UserError(
            f"{where}: {index} names {len(lost)} tensors that their files do not hold: {_list(lost)}; copy or "
            "download index and shards again"
        )


def _list(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(map(str, names[:most]))}{more}"


def _read_header(file: Path, where: str) -> Shapes:
    size = file.stat().st_size
    with file.open("rb") as f:
        length = int.from_bytes(f.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            raise UserError(f"{where}: {file} ends within its header, at {size} bytes; {AGAIN}")
        raw = f.read(length)
    try:
        tensors: dict[str, Any] = json.loads(raw)
        tensors.pop("__metadata__", None)
        shapes = {name: tuple(tensor["shape"]) for name, tensor in tensors.items()}
        wanted = _LENGTH_BYTES + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{where}: {file} is no safetensors file; {AGAIN}") from None
    if size != wanted:
        raise UserError(f"{where}: {file} has {size} bytes and should have {wanted}, by its header; {AGAIN}")
    return shapes


def _check_pickle(file: Path, where: str) -> None:
    """torch writes a zip archive, whose table stands at its end; before 1.6 it wrote something else, which passes."""
    with file.open("rb") as f:
        begins = f.read(2)
    if not begins or (begins == b"PK" and not zipfile.is_zipfile(file)):
        raise UserError(f"{where}: {file} is not whole, at {file.stat().st_size} bytes; {AGAIN}")
