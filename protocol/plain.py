"""The attack prompt in an output that follows no format (`attacker_format: plain`): outer quotes and a leading label are dropped.

Models that were asked for a rewrite and nothing else like to introduce it: `Here is the rewritten query: "..."`. The rule, which
docs/models.md has in words for users, is:

1. White space around the text is dropped.
2. A leading label is dropped. It ends in a colon and is either one of `LABELS` (as in "Rewritten prompt:"), or a short sentence
   on the first line that begins with "Here is", "Here's", "This is" or "Below is" and has one of `NOUNS` in it. "Sure," and its
   like may stand before it, and stars, hashes or underscores around it.
3. Quotes around all of the rest are dropped, if that pair stands nowhere inside.
4. 2 and 3 are done once more, for a label within the quotes.

Everything else stays as it is; an output of which nothing stays is no attack. Reading takes time in proportion to the text.
"""

import re

NOUNS = (
    "attack",
    "phrasing",
    "prompt",
    "query",
    "question",
    "request",
    "rephrasing",
    "rewording",
    "rewrite",
    "version",
)
_QUALIFIERS = "adversarial|attack|final|modified|my|new|reformulated|rephrased|revised|reworded|rewritten|the|updated"
LABELS = rf"(?:(?:{_QUALIFIERS}) ){{0,3}}(?:{'|'.join(NOUNS)}|output|answer)"
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "```": "```"}

_MARKUP = r"[*_#> ]{0,8}"
_ASSENT = r"(?:(?:sure|certainly|of course|absolutely|okay|ok|yes)(?: thing)?[,.!:]?[ \n]{1,3})?"
_SENTENCE = rf"(?:here is|here['’]s|this is|below is)\b(?=[^:\n]*\b(?:{'|'.join(NOUNS)})\b)[^:\n]{{0,120}}"
_LABEL = re.compile(rf"{_MARKUP}{_ASSENT}{_MARKUP}(?:{_SENTENCE}|{LABELS}){_MARKUP}:{_MARKUP}", re.IGNORECASE)
_LONGEST = 200  # characters in which a label ends, so that nothing is searched for in a long text
_BETWEEN_LETTERS = re.compile(r"(?<=\w)['’](?=\w)")  # an apostrophe is no quote


def find_attack(text: str) -> str:
    """The attack prompt in a whole output; empty if there is none."""
    text = text.strip()
    for _ in range(2):
        text = _drop_quotes(_drop_label(text))
    return text


def _drop_label(text: str) -> str:
    found = _LABEL.match(text[:_LONGEST])
    return text if found is None else text[found.end() :].strip()


def _drop_quotes(text: str) -> str:
    for opening in sorted(QUOTES, key=len, reverse=True):
        closing = QUOTES[opening]
        if len(text) >= len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            inside = text[len(opening) : -len(closing)]
            bare = _BETWEEN_LETTERS.sub("", inside)
            return text if opening in bare or closing in bare else inside.strip()
    return text
