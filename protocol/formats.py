"""The formats of a completion: how its hidden and visible parts are marked, and how strictly they are read.

Reading takes time in proportion to the text, whatever it is: a model that loops writes thousands of tags.

A format must match the whole output (outer white space aside): its tags once each, in order, not nested, with something in
every part. What does not match is `malformed`; nothing is repaired. Formats are described in GAME.md 1 and 2.
"""

import functools
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a completion.

    `parts` are the tags in order; `tail` says that the visible part is the untagged text after the last tag. Otherwise
    the visible part is what the last tag holds.
    """

    name: str
    parts: tuple[str, ...]
    tail: bool
    instruction: str

    def visible(self, text: str) -> str | None:
        """The part that the other player or the judge sees; None if the text is malformed."""
        if not self.parts:
            return text.strip()
        wanted = [tag for name in self.parts for tag in (f"<{name}>", f"</{name}>")]
        pieces = _any_tag(self.parts).split(text, maxsplit=len(wanted) + 1)  # one too many is enough
        between, tags = [piece.strip() for piece in pieces[::2]], pieces[1::2]
        if tags != wanted:
            return None
        outside, held = between[::2], between[1::2]
        if self.tail:
            held.append(outside.pop())
        return held[-1] if all(held) and not any(outside) else None


@functools.cache
def _any_tag(parts: tuple[str, ...]) -> re.Pattern[str]:
    """Any tag of the parts, captured. It repeats nothing, so a search looks at each character a bounded number of times."""
    return re.compile(f"(</?(?:{'|'.join(parts)})>)")


_FORMATS = [
    Format(
        "think_prompt",
        ("think", "prompt"),
        False,
        "First plan inside <think> and </think>. Then write the rewritten query, and only that, inside <prompt> and "
        "</prompt>. Write nothing before, between or after the two blocks, and use each tag once.",
    ),
    Format(
        "prompt",
        ("prompt",),
        False,
        "Write the rewritten query, and only that, inside <prompt> and </prompt>. Write nothing before or after the "
        "block, and use each tag once.",
    ),
    Format("plain", (), False, ""),
    Format(
        "think_plain",
        ("think",),
        True,
        "First reason inside <think> and </think>. Then write your answer after the closing tag.",
    ),
    Format(
        "think_answer",
        ("think", "answer"),
        False,
        "First reason inside <think> and </think>. Then write your answer inside <answer> and </answer>. Write nothing "
        "outside the two blocks.",
    ),
]
FORMATS: dict[str, Format] = {f.name: f for f in _FORMATS}
