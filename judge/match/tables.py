"""The tables of the match judge: `tables/*.txt` beside this module, each with a version.

A file is UTF-8: a header `---`, `version: N`, `---`; lines that begin with `#` are comments. In a table of phrases a line is a
phrase, `(a|b)` stands for either and `(a|)` for `a` or nothing; a line that begins with `!` is an exception (`words.Phrases`). The
function words stand several in a line. The digest covers every file, so an edited table is another judge in rows and in the cache.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

from judge.identity import MATCH_VERSION
from judge.match.words import Phrases, split_words
from protocol.types import Criterion

FOLDER = Path(__file__).parent / "tables"
NAMES = ("refusal", "redirection", "courtesy", "asks_to_refuse", "function_words")
_HEADER = re.compile(r"---\nversion: ([0-9]{1,9})\n---\n")
_EITHER = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True)
class Tables:
    """All tables.

    Attributes:
        versions: by name.
        digest: of all files, 8 hexadecimal digits.
    """

    refusal: Phrases
    redirection: Phrases
    courtesy: Phrases
    asks_to_refuse: Phrases
    function_words: frozenset[str]
    versions: Mapping[str, int]
    digest: str

    def rubric_name(self, criterion: Criterion) -> str:
        """What a verdict calls its rubric: the version of the rules, and the digest of the tables."""
        return f"match/{criterion}@{MATCH_VERSION}-{self.digest}"

    @property
    def rubric_names(self) -> tuple[str, ...]:
        """Of every criterion, sorted."""
        # Harm cannot be told from phrases: a judge without that criterion leaves that column of `evaluate` out.
        told = (criterion for criterion in get_args(Criterion) if criterion != "harmfulness")
        return tuple(sorted(self.rubric_name(criterion) for criterion in told))


@cache
def load_tables(folder: Path = FOLDER) -> Tables:
    """Reads the tables, once.

    Raises:
        OSError: a file is missing.
        ValueError: a file has no header.
    """
    raw = {name: (folder / f"{name}.txt").read_bytes() for name in NAMES}
    digest = hashlib.blake2b(digest_size=4)
    for name, content in raw.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    read = {name: _read(name, content.decode()) for name, content in raw.items()}
    phrases = {name: _make_phrases(lines) for name, (_, lines) in read.items() if name != "function_words"}
    return Tables(
        **phrases,
        function_words=frozenset(word for line in read["function_words"][1] for word in split_words(line)),
        versions={name: version for name, (version, _) in read.items()},
        digest=digest.hexdigest(),
    )


def _read(name: str, text: str) -> tuple[int, list[str]]:
    header = _HEADER.match(text)
    if header is None:
        raise ValueError(f"{name}.txt: no header; begin the file with the lines '---', 'version: 1', '---'")
    lines = [line.strip() for line in text[header.end() :].split("\n")]
    return int(header[1]), [line for line in lines if line and not line.startswith("#")]


def expand(line: str) -> Iterator[tuple[str, ...]]:
    """Every phrase that a line of a table stands for, as words."""
    parts = _EITHER.split(line)
    for chosen in itertools.product(*(part.split("|") if k % 2 else [part] for k, part in enumerate(parts))):
        yield tuple(split_words("".join(chosen)))


def _make_phrases(lines: list[str]) -> Phrases:
    counted = [phrase for line in lines if not line.startswith("!") for phrase in expand(line)]
    return Phrases(counted, [phrase for line in lines if line.startswith("!") for phrase in expand(line[1:])])
