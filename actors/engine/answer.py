"""From the tokens of a completion to its text, as its format reads it.

Two things that vLLM's own text lacks are put back:
- what the chat template wrote of the answer: a generation prompt that ends in `<think>` opens the reasoning for the model, so the
  format's opening tag is taken as given and stands before the text;
- tags of a format that are special tokens of the tokenizer, as `<think>` of some reasoning models: vLLM leaves every special token
  out of the text. Others, the end of a turn among them, stay out.

A tokenizer without such tags has vLLM's text unchanged. It knows nothing of vLLM, and not which format a game wants.
"""

from collections.abc import Sequence
from typing import Any

from protocol.formats import FORMATS

TAGS = frozenset(tag for f in FORMATS.values() for name in f.parts for tag in (f"<{name}>", f"</{name}>"))


class AnswerText:
    """The texts of one tokenizer's completions.

    Args:
        tokenizer: transformers'.
        opening: what the template writes of every answer (`ChatPrompts.opening`).
    """

    def __init__(self, tokenizer: Any, opening: str) -> None:
        self._tokenizer, self._opening = tokenizer, opening
        special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        special |= {
            token_id: token.content for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        dropped = {token_id for token_id, content in special.items() if content not in TAGS}
        self._dropped = dropped if len(dropped) < len(special) else None

    def __call__(self, token_ids: Sequence[int], text: str) -> str:
        """The completion's text.

        Args:
            token_ids: all of them.
            text: without special tokens.
        """
        if self._dropped is not None:
            kept = [token for token in token_ids if token not in self._dropped]
            text = self._tokenizer.decode(kept, skip_special_tokens=False)
        return self._opening + text
