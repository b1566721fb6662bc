"""Texts as words: folded, stemmed, compared, and searched for phrases. Pure, and it knows no table.

Invariant: everything takes time in proportion to the text's length, whatever it holds. So characters are folded one by one (to
normalise a whole text sorts runs of combining marks, which is quadratic), and phrases are a tree that is walked from each word.

Only words of Latin letters and digits are seen. Another script has none.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_APOSTROPHES = frozenset("’‘ʼ′`´")
_DOUBLED = re.compile(r"([b-df-hj-np-tv-z])\1\Z")
_SHORTEST_STEM = 3
_END = ""  # a key of the tree that no word has: the phrase ends here, and whether it counts


@lru_cache(maxsize=4096)
def _fold(char: str) -> str:
    """A character without case, accents, compatibility form and what cannot be seen."""
    if char in _APOSTROPHES:
        return "'"
    if unicodedata.category(char) in ("Cf", "Mn", "Me"):
        return ""
    plain = unicodedata.normalize("NFKD", char).casefold()
    return "".join(c for c in plain if unicodedata.category(c) not in ("Cf", "Mn", "Me"))


def split_words(text: str) -> list[str]:
    """The words of a text, in order, folded; apostrophes are left out, so "Can't" is `cant`."""
    folded = text.lower() if text.isascii() else "".join(map(_fold, text))
    return [word.replace("'", "") for word in _WORD.findall(folded.replace("`", "'"))]


def stem(word: str) -> str:
    """A word without its English ending, roughly: copy, copies, copied and copying are one."""
    for ending, instead in (("ies", "y"), ("ied", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("ly", ""), ("s", "")):
        kept = word.removesuffix(ending)
        if kept != word and len(kept) >= _SHORTEST_STEM and not (ending == "s" and word.endswith("ss")):
            word = kept + instead
            break
    return _DOUBLED.sub(r"\1", word).removesuffix("e")


def content_of(words: Iterable[str], function_words: frozenset[str]) -> frozenset[str]:
    """The stems of the words that say what a text is about: neither function words nor single characters."""
    return frozenset(stem(word) for word in words if len(word) > 1 and word not in function_words)


def repetition(words: Sequence[str]) -> float:
    """The share of the runs of three words that were there before; 0 for a text too short to say."""
    runs = [*zip(words, words[1:], words[2:], strict=False)]
    return 1 - len(set(runs)) / len(runs) if len(runs) >= 6 else 0.0


class Phrases:
    """Phrases to look for, each a sequence of words.

    Args:
        phrases: those that count.
        exceptions: those that hide a shorter one that begins at the same word.
    """

    def __init__(self, phrases: Iterable[Sequence[str]], exceptions: Iterable[Sequence[str]] = ()) -> None:
        self._tree: dict[str, Any] = {}
        self.longest = 0
        for counts, group in ((True, phrases), (False, exceptions)):
            for phrase in group:
                self._add(phrase, counts)

    def _add(self, phrase: Sequence[str], counts: bool) -> None:
        node = self._tree
        for word in phrase:
            node = node.setdefault(word, {})
        node[_END] = counts
        self.longest = max(self.longest, len(phrase))

    def find(self, words: Sequence[str]) -> list[int]:
        """Where phrases begin, as places in `words`; the longest at each place, none inside another."""
        found: list[int] = []
        at = 0
        while at < len(words):
            node, end, counts = self._tree, at, False
            for k in range(at, len(words)):
                if words[k] not in node:
                    break
                node = node[words[k]]
                if _END in node:
                    end, counts = k + 1, node[_END]
            if counts:
                found.append(at)
            at = max(end, at + 1)
        return found
