"""From chat messages to a prompt's token ids: what a message holds is characters, never a control token of the chat template.

A seed or an attack that spells `<|im_end|>` would otherwise end its turn and begin another. Invariants
- The control tokens of a prompt are those that the template writes itself, in that order, whatever the messages hold.
- A prompt whose messages spell none has exactly the ids of `apply_chat_template(tokenize=True)`.
- The characters of a message are the prompt's characters, as far as the template keeps them: nothing is replaced or dropped.
- What a system turn says is in the prompt: where the template knows no such turn, at the beginning of the user's.

How: each spelling is cut in two before the template is applied, by a mark that occurs nowhere else, and what lies between two marks
is tokenized by itself. So the template trims and wraps as it always does. Which texts spell a control token is the tokenizer's
own word, with its normalizer and its rules about white space.

It knows nothing of vLLM, and no rule is made for a family of models. How the model's answer becomes text is `answer`'s.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from protocol.errors import UserError, first_words
from protocol.formats import FORMATS
from protocol.prompts import fold_system, takes_system
from protocol.types import Message

PRIVATE_USE = range(0xE000, 0xF900)  # characters that mean nothing: marks are chosen among them
_OPENING = re.compile(rf"<(?:{'|'.join(sorted({f.parts[0] for f in FORMATS.values() if f.parts}))})>\s*\Z")


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """The tokenizer's control tokens, by id: every special one, and other added ones that the chat template writes.

    Words and white space that somebody added are none, and neither are a token of one character and what stands for an unknown
    one, because any text may hold those.
    """
    template = str(tokenizer.chat_template)  # also where it is several, by name
    special = set(tokenizer.all_special_tokens)
    found = {
        token_id: token.content
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special or token.content in special or (_is_markup(token.content) and token.content in template)
    }
    found |= {tokenizer.convert_tokens_to_ids(content): content for content in special}
    if tokenizer.unk_token not in (tokenizer.bos_token, tokenizer.eos_token):
        found.pop(tokenizer.unk_token_id, None)
    return {token_id: content for token_id, content in found.items() if len(content) > 1}


def _is_markup(content: str) -> bool:
    return not content.isspace() and not content.isalnum()


class ChatPrompts:
    """Makes prompts for one tokenizer, which is a fast one of transformers with a chat template.

    Args:
        arguments: of the template, as in `{"enable_thinking": False}`; every rendering gets them.
    """

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._tokenizer, self._arguments = tokenizer, arguments
        self._control = control_tokens(tokenizer)
        self._in_template = set(str(tokenizer.chat_template))
        self._written: dict[tuple[tuple[str, str], ...], list[int]] = {}

    @property
    def opening(self) -> str:
        """What the template itself writes of an answer: a format's opening tag and the white space behind it, or nothing."""
        asked = self._render([{"role": "user", "content": "x"}], tokenize=False)
        found = _OPENING.search(asked)
        return "" if found is None else found.group()

    def check(self, name: str) -> None:
        """Raises `UserError` if a prompt cannot be written, or text could pass for a control token after all.

        Args:
            name: of the model, for the message.
        """
        from jinja2 import TemplateError, TemplateSyntaxError

        every = " ".join(self._control.values())
        for roles in (("user",), ("system", "user")):
            try:
                self.encode([{"role": role, "content": f"a{every} {every}b"} for role in roles])
            except TemplateSyntaxError as error:
                raise UserError(
                    f"{name}: the chat template does not parse, at line {error.lineno}: {error.message}; correct it"
                ) from error
            except TemplateError as error:
                raise UserError(f"{name}: the chat template takes no user turn: {first_words(error)}") from error
            except (ValueError, NotImplementedError) as error:
                raise UserError(f"{name}: the tokenizer cannot hold text apart from control tokens: {error}") from error
            except (TypeError, LookupError, ArithmeticError) as error:
                raise UserError(
                    f"{name}: the chat template cannot write a {roles[0]} turn: {first_words(error)}"
                ) from error

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt's token ids, up to where the model answers.

        Raises:
            ValueError: the template joins pieces of text to a control token; no known one does.
        """
        if messages[0]["role"] == "system" and not self.takes_system:
            messages = fold_system(messages)
        ids = self._render(messages, tokenize=True)
        written = self._written_for(messages)
        if self._controls(ids) == written:
            return ids
        mark = self._choose_mark(messages)
        apart = [{**m, "content": mark.join(self._cut(m["content"]))} for m in messages]
        ids = [token for piece in self._render(apart, tokenize=False).split(mark) for token in self._ids(piece)]
        if self._controls(ids) != written:
            raise ValueError("the chat template makes control tokens of what messages hold")
        return ids

    @functools.cached_property
    def takes_system(self) -> bool:
        """Whether the template writes a system turn."""
        return takes_system(functools.partial(self._render, tokenize=False))

    def _render(self, messages: Sequence[Message], tokenize: bool) -> Any:
        return self._tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=tokenize, return_dict=False, **self._arguments
        )

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _controls(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self._control]

    def _written_for(self, messages: Sequence[Message]) -> list[int]:
        """The control tokens that the template writes around messages of these roles. Empty ones stay empty."""
        shape = tuple((m["role"], "x" if m["content"].strip() else "") for m in messages)
        if shape not in self._written:
            ids = self._render([{"role": role, "content": content} for role, content in shape], tokenize=True)
            self._written[shape] = self._controls(ids)
        return self._written[shape]

    def _cut(self, text: str) -> list[str]:
        """`text` in pieces, none of which spells a control token."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = [
            (start, end)
            for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            if token in self._control and end - start > 1
        ]
        if not spans:
            return [text]
        middles = [(start + end) // 2 for start, end in spans]
        pieces = [text[a:b] for a, b in zip([0, *middles], [*middles, len(text)], strict=True)]
        # Again: a cut may leave another spelling, and one with white space around it may have been cut in the white space.
        return [smaller for piece in pieces for smaller in self._cut(piece)]

    def _choose_mark(self, messages: Sequence[Message]) -> str:
        used = self._in_template.union(*(m["content"] for m in messages))
        return next(mark for mark in map(chr, PRIVATE_USE) if mark not in used)
