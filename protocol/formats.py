"""The formats of a completion: how its hidden and visible parts are marked, and how strictly they are read.

A format must match the whole output (outer white space aside): its tags once each, in order, not nested, with something in
every part. What does not match is `malformed`; nothing is repaired. Formats are described in GAME.md 1 and 2.
"""

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
        body = "".join(rf"\s*<{tag}>(?P<{tag}>.*?)</{tag}>" for tag in self.parts)
        match = re.fullmatch(body + (r"(?P<tail_>.*)" if self.tail else r"\s*"), text, flags=re.DOTALL)
        if match is None:
            return None
        found = {name: value.strip() for name, value in match.groupdict().items()}
        any_tag = re.compile("|".join(rf"</?{tag}>" for tag in self.parts))
        if any(not value or any_tag.search(value) for value in found.values()):
            return None
        return found["tail_" if self.tail else self.parts[-1]]


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
