"""The fence around untrusted text in a judge's prompt: the text inside can neither end the fence nor write a verdict.

Invariants (held by property tests):
- a fenced block has one live opening and one live closing tag, whatever the text holds. A live tag is `<` directly before one of
  our tag names; in the text every such `<` is replaced by `‹`, also where only a tokenizer that folds Unicode would see it;
- the control tokens of common chat templates are replaced in the same way, so that a text cannot end the judge's turn;
- nothing else changes: a judge reads the text as it was written.

The nonce is for the judge, not for the parser: a tag that only resembles ours does not carry it.
It does not know where blocks go (`rubric`) or how verdicts are read (`verdicts`).
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from judge.digests import hash_texts

NONCE_DIGITS = 6  # hexadecimal: nobody writes a text that contains a hash of itself

OUR_TAGS = ("query", "response", "score", "faithful", "think")
# Control tokens of chat templates that are not of the form `<|name|>`: Llama 2, Mistral, Gemma, T5 and their kin.
_CONTROL_ANGLE = (
    *("s", "bos", "eos", "pad", "unk", "mask", "sys"),
    *("start_of_turn", "end_of_turn", "start_of_image", "end_of_image", "image_soft_token"),
)
_CONTROL_SQUARE = (
    *("inst", "system_prompt", "think", "available_tools", "tool_calls", "tool_results", "tool_content", "args"),
    *("img", "img_break", "img_end", "prefix", "middle", "suffix", "audio", "begin_audio", "call_id"),
)
# A bracket is disarmed where only punctuation, space or invisible characters stand between it and one of our names. The run is
# possessive and starts only where a run starts: a million brackets take linear time.
_BEFORE_OURS = re.compile(rf"(?<![\W_])[\W_]++(?={'|'.join(OUR_TAGS)})")
_CONTROL = re.compile(rf"<(?=/?(?:\||(?:{'|'.join(_CONTROL_ANGLE)})>))|\[(?=/?(?:{'|'.join(_CONTROL_SQUARE)})\])")
_PLAIN = re.compile(r"[\t\n\r -~]*")
_DISARMED = {"<": "‹", "[": "⟦"}


@lru_cache(maxsize=4096)
def _fold(char: str) -> str:
    """A character as a careless reader sees it: compatibility forms and case undone, invisible ones gone."""
    if unicodedata.category(char) in ("Cc", "Cf", "Mn", "Me") and char not in "\t\n\r":
        return ""
    folded = unicodedata.normalize("NFKC", char).casefold()
    return folded if len(folded) == 1 else char


def neutralise(text: str) -> str:
    """`text` with every bracket disarmed that begins one of our tags or a control token of a chat template."""
    if _PLAIN.fullmatch(text):
        seen, places = text.lower(), None
    else:
        kept = [(folded, at) for at, char in enumerate(text) if (folded := _fold(char))]
        seen, places = "".join(folded for folded, _ in kept), [at for _, at in kept]
    hits = [at for run in _BEFORE_OURS.finditer(seen) for at in range(*run.span()) if seen[at] == "<"]
    hits += [match.start() for match in _CONTROL.finditer(seen)]
    if not hits:
        return text
    chars = list(text)
    for at in hits:
        chars[at if places is None else places[at]] = _DISARMED[seen[at]]
    return "".join(chars)


def nonce_for(query: str, responses: Sequence[str]) -> str:
    """A code that occurs in none of the texts. The order of the responses does not change it.

    It is a function of the texts, so that a question can be asked again and its verdict cached, and so that both orders of a pair
    share the prompt up to the first response.
    """
    texts = [query, *sorted(responses)]
    digest = hash_texts(texts)
    while True:
        nonce = digest.hexdigest()[:NONCE_DIGITS]
        if not any(nonce in text for text in texts):
            return nonce
        digest.update(b"again")


def tags(name: str, nonce: str | None) -> tuple[str, str]:
    """The live opening and closing tag of a block."""
    code = "" if nonce is None else f" {nonce}"
    return f"<{name}{code}>", f"</{name}{code}>"


def fence(name: str, text: str, nonce: str | None) -> str:
    """The block: the neutralised text between its tags, on lines of its own, or set off by single spaces without a nonce."""
    opening, closing = tags(name, nonce)
    space = " " if nonce is None else "\n"
    return f"{opening}{space}{neutralise(text)}{space}{closing}"
