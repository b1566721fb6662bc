"""Prompts and answers as a model folder's chat template writes them, as tokens: what a learner is shown of a demonstration.

Invariant: an answer's tokens are those that generation would have to sample after the prompt's, end of turn included. So what the
template's generation prompt already writes of an answer, as the `<think>` that opens some models' reasoning, is no part of it. And
the prompt's are those of a game: where the template knows no system turn, what it says begins the user's turn (`fold_system`).
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from learners.batch.micro_batches import Ids
from protocol.errors import UserError
from protocol.formats import FORMATS
from protocol.prompts import fold_system, takes_system
from protocol.types import Message

_OPENING = re.compile(rf"(<(?:{'|'.join(sorted({f.parts[0] for f in FORMATS.values() if f.parts}))})>)\s*\Z")
_MARK = "\ue000"  # stands where an answer would; no template writes it


class ChatTokenizer:
    """Tokenizes prompts and answers for one model folder.

    Args:
        arguments: of the chat template.
    """

    def __init__(self, model_path: str, arguments: Mapping[str, Any] = MappingProxyType({})) -> None:
        from transformers import AutoTokenizer

        self._path, self._arguments = model_path, dict(arguments)
        self._tokenizer = AutoTokenizer.from_pretrained(model_path)
        self._stops = _stop_ids(self._tokenizer, Path(model_path))
        self._takes_system = takes_system(functools.partial(self._render, add_generation_prompt=True, tokenize=False))

    def __call__(self, messages: Sequence[Message], answer: str) -> tuple[Ids, Ids]:
        """The prompt's tokens, up to where the assistant begins; and the answer's, up to the end of its turn.

        Raises:
            UserError: the template does not end an answer.
        """
        messages = messages if self._takes_system else fold_system(messages)
        before: str = self._render(messages, add_generation_prompt=True, tokenize=False)
        written = self._render([*messages, {"role": "assistant", "content": answer}], tokenize=False)
        after = written.removeprefix(before)
        if not written.startswith(before) or answer.strip() not in after:
            # The template rewrites answers, as those that take the reasoning out; what is sampled nobody rewrites.
            after = _without_opening(answer.strip(), before) + self._ending(messages)
        # Cut as text and tokenized apart: a sampler never has a token that reaches back into the prompt.
        ids = self._tokenizer(after, add_special_tokens=False)["input_ids"]
        ends = [k for k, token in enumerate(ids) if token in self._stops]
        if not ends:
            raise UserError(
                f"{self._path}: its chat template does not write an answer as generation prompt, text, end of turn, "
                "so demonstrations cannot be learned; set sft.path to null and sft.warm_steps to 0, or give a template that does"
            )
        asked = self._render(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        # Generation ends at the first token that ends it, whatever the template writes after.
        return np.asarray(asked, np.int64), np.asarray(ids[: ends[0] + 1], np.int64)

    def spells_control(self, text: str) -> bool:
        """Whether the text holds a special token's characters, which would become that token in a prompt or an answer."""
        return any(token in text for token in self._tokenizer.all_special_tokens)

    def _ending(self, messages: Sequence[Message]) -> str:
        """What the template writes after an answer."""
        marked: str = self._render([*messages, {"role": "assistant", "content": _MARK}], tokenize=False)
        return marked.rpartition(_MARK)[2]

    def _render(self, messages: Sequence[Message], **options: Any) -> Any:
        return self._tokenizer.apply_chat_template(list(messages), **options, **self._arguments)


def _without_opening(answer: str, before: str) -> str:
    """The answer without the tag that the generation prompt ends in."""
    found = _OPENING.search(before)
    return answer if found is None else answer.removeprefix(found[1]).lstrip()


def _stop_ids(tokenizer: Any, folder: Path) -> set[int]:
    """The tokens that end generation: the tokenizer's, and those that the model folder names beside it."""
    stops = {tokenizer.eos_token_id}
    file = folder / "generation_config.json"
    named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    return (stops | set(named if isinstance(named, list) else [named])) - {None}
