"""The fence around untrusted text in a judge's prompt: the text inside can neither end the fence nor write a verdict.

Invariants (held by property tests):
- a fenced block has one live opening and one live closing tag, whatever the text holds. A live tag is `<` directly before one of
  our tag names; in the text every such `<` is replaced by `‹`, also where only a tokenizer that folds Unicode would see it;
- the control tokens of chat templates are replaced in the same way, so that a text cannot end the judge's turn: by the forms that
  such tokens have, because the tokenizer of an endpoint's model is not known here (an engine of our own knows its tokenizer, and
  makes no control token of any text);
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
# Control tokens of the form `<name>`: alone, with a number behind, or where one of the words is part of a longer name, as in
# `<EOS_TOKEN>`, `<extra_id_1>` or `<tool_call>`. Names of one ordinary word (`<user>`, `<image>`) stay: people write them.
_CONTROL_ANGLE = {*("s", "bos", "eos", "eot", "eom", "eod", "sop", "eop", "pad", "unk", "mask", "cls", "sep", "sys")}
_NUMBERED = {"unused", "reserved", "extra", "sentinel", "special"}
_PARTS = (
    (_CONTROL_ANGLE - {"s"})
    | _NUMBERED
    | {
        *("token", "tool", "tools", "turn", "fim", "image", "img", "audio", "video", "vision", "start", "end", "begin"),
        *("prefix", "suffix", "middle", "system", "user", "assistant", "human", "bot", "repo", "think", "im", "file"),
    }
)
_CONTROL_SQUARE = (
    *("inst", "system_prompt", "think", "available_tools", "tool_calls", "tool_results", "tool_content", "args"),
    *("img", "img_break", "img_end", "prefix", "middle", "suffix", "audio", "begin_audio", "call_id"),
    *("bos", "eos", "gmask", "smask"),
)
LONGEST_NAME = 64  # no tokenizer has a longer one, and the bound keeps the search linear
# A bracket is disarmed where only punctuation, space or invisible characters stand between it and one of our names. The run is
# possessive and starts only where a run starts: a million brackets take linear time.
_BEFORE_OURS = re.compile(rf"(?<![\W_])[\W_]++(?={'|'.join(OUR_TAGS)})")
_CONTROL = re.compile(rf"<(?=/?\|)|<(?=/?[\w-]{{1,{LONGEST_NAME}}}\|>)|\[(?=/?(?:{'|'.join(_CONTROL_SQUARE)})\])")
_NAMED = re.compile(rf"<(?=/?([\w-]{{1,{LONGEST_NAME}}})>)")
_BYTE = re.compile("0x[0-9a-f]{2}")  # of tokenizers that fall back to bytes
_PLAIN = re.compile(r"[\t\n\r -~]*")
_DISARMED = {"<": "‹", "[": "⟦"}


def _names_control_token(name: str) -> bool:
    """Whether `<name>`, in lower case, has the form of a control token."""
    words = re.split("[_-]", name)
    if len(words) == 1:
        stem = name.rstrip("0123456789")
        return name in _CONTROL_ANGLE or (stem in _NUMBERED and stem != name) or bool(_BYTE.fullmatch(name))
    return words[-1] != "t" and not _PARTS.isdisjoint(words)  # `<start_t>` would be a type in C


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
    hits += [match.start() for match in _NAMED.finditer(seen) if _names_control_token(match[1])]
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
