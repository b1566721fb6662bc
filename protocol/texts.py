"""Is there anything to read in a text, and where does it begin and end? What people paste holds characters that show nothing.

And how a name is written in Markdown.
"""

import unicodedata

# Letters and symbols that show nothing: Hangul fillers, Khmer inherent vowels, the Braille pattern without dots.
_BLANK = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
# Around a text they are white space in all but name: zero-width space, word joiner, byte order mark. Joiners of emojis are not
# among them, because they change what stands before them.
_AROUND = "\u200b\u2060\ufeff"


def has_text(text: str) -> bool:
    """Whether a reader would see anything: a character that is no white space, no control or format character and no lone mark."""
    return any(_is_visible(character) for character in text)


def _is_visible(character: str) -> bool:
    category = unicodedata.category(character)
    # Not every "C": private characters may have a glyph, and unassigned ones are often emojis that this Python does not know yet.
    return character not in _BLANK and category[0] not in "ZM" and category not in ("Cc", "Cf")


def strip_outer(text: str) -> str:
    """The text without what shows nothing before and after it."""
    while text != (stripped := text.strip().strip(_AROUND)):
        text = stripped
    return text


def code(text: str) -> str:
    """A name in Markdown as it is, in a table too."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"
