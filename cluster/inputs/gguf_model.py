"""An ordinary Hugging Face folder from a GGUF file: float32 weights, tokenizer, chat template, generation config, model card.

transformers reads the file; what it loads remembers that it was quantized and can be neither trained nor saved, so its tensors are
put into a fresh model of the same configuration. Only architectures and tokenizers that transformers knows can be had.

Invariant: the folder is whole or not there, and its tokenizer, read again from the disk, splits text as the file's does.
"""

import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.inputs.gguf_card import LISTS, Origin, read_origin, write_card
from protocol.errors import UserError
from protocol.files import make_folder, write_file

CARD = "README.md"
# Tokens that end what a model writes, by the names that GGUF files give them: of a text, of a turn, of a message.
_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
# Words, numbers, white space, accents, another script: a tokenizer that splits any of them otherwise is another one.
_SAMPLE = "It's 2023:  naïve café prices rose 15%.\n\tdef f(x): return x**2 # 你好, done!"


@dataclass(frozen=True, slots=True)
class MadeModel:
    """What came of a GGUF file.

    Attributes:
        parameters: how many.
        ends: ids of the tokens that end what it writes.
        has_template: whether the file held a chat template. Without one the folder needs one before a run.
    """

    parameters: int
    ends: tuple[int, ...]
    has_template: bool

    def describe(self) -> str:
        """In one line."""
        ends = f"ends at token {', '.join(map(str, self.ends))}"
        lacks = "" if self.has_template else "; no chat template: add chat_template.jinja before a run"
        return f"{self.parameters / 1e6:.1f} M parameters in float32, {ends}{lacks}"


def check_target(folder: Path, command: str) -> None:
    """Raises `UserError` if `folder` is there and not empty. `command` is for the message."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{command}: {folder} exists and is not empty; give a new name")


def convert_gguf(
    file: Path, folder: Path, command: str = "models gguf", beside: Sequence[Path] = (), known: Origin | None = None
) -> MadeModel:
    """Writes the model of a GGUF file as a Hugging Face folder, whole or not at all.

    Args:
        file: of an architecture that transformers reads, quantized or not, in one piece.
        folder: must not exist, or be empty.
        command: for messages.
        beside: further files that are copied into the folder.
        known: where the model comes from, for its card; None: as far as the file says.

    Raises:
        UserError: the file is missing, no GGUF, or of a kind that transformers does not read; the folder is not empty or cannot be
            written.
    """
    check_target(folder, command)
    os.environ.setdefault(
        "TQDM_DISABLE", "1"
    )  # read when transformers imports tqdm: one of its bars has no other switch
    try:
        metadata = _read_metadata(file)
        with make_folder(folder, replace=True) as draft:
            for extra in beside:
                shutil.copyfile(extra, draft / extra.name)
            made = _convert(file, metadata, draft)
            write_file(draft / CARD, _write_card(file, metadata, made, known))
            return made
    except _NotMade as error:
        raise UserError(f"{command}: {error}") from None
    except OSError as error:
        raise UserError(f"{command}: {folder} cannot be written ({error.strerror or type(error).__name__})") from None


class _NotMade(Exception):
    """Why there is no folder, without the command's name."""


def _read_metadata(file: Path) -> Mapping[str, Any]:
    """What the file says of itself; long lists as their lengths."""
    if not file.is_file():
        raise _NotMade(f"{file} is no file; give the path of a GGUF file")
    from transformers.integrations.gguf import read_gguf_metadata

    try:
        metadata, _ = read_gguf_metadata(str(file), LISTS)
    except (ValueError, struct.error, OverflowError) as error:
        raise _NotMade(f"{file} cannot be read as GGUF ({_first_line(error)}); give a whole GGUF file") from None
    if metadata.get("split.count", 1) > 1:
        raise _NotMade(
            f"{file} is one of {metadata['split.count']} pieces; join them with llama-gguf-split --merge first"
        )
    return metadata


def _write_card(file: Path, metadata: Mapping[str, Any], made: MadeModel, known: Origin | None) -> str:
    from gguf import LlamaFileType

    said = read_origin(metadata, {kind.value: kind.name for kind in LlamaFileType})
    return write_card(replace(known, kind=said.kind) if known else said, file.name, made.ends, made.has_template)


def _convert(file: Path, metadata: Mapping[str, Any], draft: Path) -> MadeModel:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, which transformers imports, warns that it chose it
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # its other bars say nothing to a person either
    at = {"gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **at)
        loaded = AutoModelForCausalLM.from_pretrained(
            str(file.parent), dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **at
        )
    except Exception as error:  # noqa: BLE001  # transformers and tokenizers raise anything over what they do not know
        raise _NotMade(
            f"transformers does not read {file} ({_first_line(error)}); give a Hugging Face folder of the model instead"
        ) from None
    ends, config = _ends(metadata, tokenizer), loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = ""  # it would be written, and is a path of this machine
    config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    config.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
    with torch.device("meta"):  # without weights of its own: the loaded ones are taken, not copied
        fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    fresh.save_pretrained(draft)
    _save_tokenizer(tokenizer, draft)
    return MadeModel(sum(p.numel() for p in fresh.parameters()), ends, bool(tokenizer.chat_template))


def _ends(metadata: Mapping[str, Any], tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end what the model writes, the file's end of text first."""
    named = [int(metadata[key]) for key in _ENDS if key in metadata]
    ends = tuple(dict.fromkeys([*named, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]))
    if not ends:
        raise _NotMade(f"the file names no token that ends a text ({_ENDS[0]}), so nothing can be sampled from it")
    return ends


def _save_tokenizer(tokenizer: Any, draft: Path) -> None:
    """Saves it so that it is read as it was.

    transformers rebuilds the splitting of some classes by the model beside them; then the plain class, which keeps what it gets.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    wanted = tokenizer(_SAMPLE)["input_ids"]
    tokenizer.save_pretrained(draft)
    if AutoTokenizer.from_pretrained(draft)(_SAMPLE)["input_ids"] == wanted:
        return
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = {name: value for name in names if (value := getattr(tokenizer, name)) is not None}
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **special)
    plain.chat_template = tokenizer.chat_template
    plain.save_pretrained(draft)
    if AutoTokenizer.from_pretrained(draft)(_SAMPLE)["input_ids"] != wanted:
        raise _NotMade("transformers cannot save the file's tokenizer; copy the tokenizer files of the original model")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
