"""The model card of a folder that was made from a GGUF file: what the file says of its origin, and what was done to it. Pure.

A run reads it where it exports a player (`learners.storage.base`): whose license and language the player has, and what it descends
from. What the file does not say stays unknown; nothing is guessed. What it says was written by others, so it is never markup.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from protocol.texts import code

LISTS = ("general.languages",)  # of strings, which a reader of metadata otherwise counts
WHOLE = ("F32", "F16", "BF16")  # kinds of file that nothing was quantized for
_HUB = re.compile(r"https?://(?:www\.)?huggingface\.co/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a GGUF's model comes from; "" and empty where that is not known.

    Attributes:
        title: its name in words.
        published: the published model whose weights these are, as ORGANISATION/MODEL.
        parent: the published model that it was made from by training.
        license: `license`, `license_name`, `license_link`, those that are known.
        languages: their codes.
        kind: of the file's tensors, as in Q4_1.
        found: where the file was found, in words.
    """

    title: str = ""
    published: str = ""
    parent: str = ""
    license: Mapping[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    kind: str = ""
    found: str = ""


def read_origin(metadata: Mapping[str, Any], kinds: Mapping[int, str]) -> Origin:
    """What a file's metadata say.

    Args:
        kinds: names of file types, by number.
    """

    def text(key: str) -> str:
        value = metadata.get(f"general.{key}")
        return " ".join(value.split()) if isinstance(value, str) else ""

    parents = [text(f"base_model.{n}.repo_url") for n in range(_count(metadata.get("general.base_model.count")))]
    languages = metadata.get("general.languages")
    number = metadata.get("general.file_type")
    return Origin(
        title=text("name"),
        published=_repository(text("source.repo_url")),
        parent=_repository(parents[0]) if len(parents) == 1 else "",
        license=_license(text("license"), text("license.name"), text("license.link")),
        languages=tuple(x for x in languages if isinstance(x, str) and _IDENTIFIER.fullmatch(x))
        if isinstance(languages, list)
        else (),
        kind=kinds.get(number, "").removeprefix("MOSTLY_").removeprefix("ALL_") if isinstance(number, int) else "",
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= 100 else 0  # a file may claim billions


def _repository(address: str) -> str:
    found = _HUB.fullmatch(address)
    return found[1] if found else ""


def _license(identifier: str, name: str, link: str) -> dict[str, str]:
    """For the hub, which takes an identifier, or `other` with a name."""
    if not _IDENTIFIER.fullmatch(identifier):  # a sentence, or nothing
        identifier, name = ("other", name or identifier) if name or identifier else ("", "")
    if not identifier:
        return {}
    found = {"license": identifier.lower()}
    if identifier.lower() == "other":
        found |= {key: value for key, value in (("license_name", name), ("license_link", link)) if value}
    return found


def write_card(origin: Origin, file: str, ends: tuple[int, ...], has_template: bool) -> str:
    """The card's text: Markdown with front matter.

    Args:
        file: the GGUF's name.
        ends: ids of the tokens that end an answer.
        has_template: whether the folder has a chat template.
    """
    quantized = bool(origin.kind) and origin.kind not in WHOLE
    values: dict[str, Any] = dict(origin.license)
    if origin.languages:
        values["language"] = list(origin.languages)
    if origin.published or origin.parent:
        values["base_model"] = origin.published or origin.parent
    if origin.published and quantized:
        values["base_model_relation"] = "quantized"  # no other relation of the hub's comes nearer
    values |= {"library_name": "transformers", "pipeline_tag": "text-generation"}
    front = f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"
    return "\n\n".join([front, *_body(origin, file, quantized, ends, has_template)]) + "\n"


def _body(origin: Origin, file: str, quantized: bool, ends: tuple[int, ...], has_template: bool) -> Iterator[str]:
    yield f"# {code(origin.title or file)} as a Hugging Face folder"
    kind = f", {origin.kind}" if origin.kind else ""
    found = f", {origin.found}" if origin.found else ""
    of = f"It holds {code(origin.published)}. " if origin.published else ""
    yield f"AdvGame made this folder from the GGUF file {code(file)}{kind}{found}. {of}Nothing was trained."
    if quantized:
        yield (
            f"Its tensors were dequantized from {origin.kind} to float32, once: the folder computes what that file computes, not "
            "what the model computed before it was quantized."
        )
    else:
        yield "Its tensors were taken to float32, once; where the file's were quantized, the folder computes what they do."
    if origin.parent:
        yield f"The file names {code(origin.parent)} as the model that its own was made from."
    said = f"Tokenizer and chat template are the file's; an answer ends at token {', '.join(map(str, ends))}."
    yield said if has_template else f"{said.replace(' and chat template are', ' is')} The file had no chat template."
    if not origin.license:
        yield "The file names no license: look for the model's own before you pass this on."
    else:
        yield "License and language are the model's, as far as they are known: see that it allows what you want to do."
