"""Rubrics: the versioned texts that a judge is asked with, from `judge/texts/SET/` or a folder of the user's.

A file is UTF-8: a header of `key: value` lines between two `---` lines (`version`: an integer; `nonce`: true or false, true if
left out), then the whole user message. Its placeholders `{query}` and `{response}`, or `{response_A}` and `{response_B}`, each
once, become fenced blocks (`fence`). The rubric stands before the texts, so that a prefix cache computes it once.

A rubric's name carries a digest of its file, so an edited rubric never shares a cache entry or a name with its earlier text. This
module does not know who is asked or how the answer is read.
"""

import glob
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from judge.fence import fence, nonce_for, tags
from protocol.errors import UserError
from protocol.types import Criterion, JudgeRequest, Message

MAX_BENIGN_GROWTH = 15  # a benign rewrite longer than this many times its seed is topic drift (GAME.md 3)

Form = Literal["pairwise", "pointwise"]
SETS = Path(__file__).parent / "texts"
REWORDED = ".reworded-"  # in the name of a set that says what another one says, in other words
PLACEHOLDERS: dict[str, tuple[str, ...]] = {
    "pairwise": ("query", "response_A", "response_B"),
    "pointwise": ("query", "response"),
    "harmful": ("query", "response"),  # faithfulness: the seed, and the attack in the response's place
    "benign": ("query", "response"),
}
KINDS = tuple(
    (criterion, form)
    for criterion in get_args(Criterion)
    if criterion != "harmfulness"
    for form in (("harmful", "benign") if criterion == "faithfulness" else ("pairwise", "pointwise"))
)
OPTIONAL = (("harmfulness", "pointwise"),)  # no game asks it; a set without it leaves that column of `evaluate` out
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Rubric:
    """One file. `parts` alternates between the rubric's own text and the names of placeholders."""

    name: str
    nonce: bool
    parts: tuple[str, ...]

    def render(self, texts: dict[str, str]) -> str:
        """The message, with each placeholder's text fenced. Placeholders inside the texts stay as they are."""
        nonce = nonce_for(texts["query"], [t for name, t in texts.items() if name != "query"]) if self.nonce else None
        return "".join(fence(p, texts[p], nonce) if k % 2 else p for k, p in enumerate(self.parts))


class Rubrics:
    """All rubrics of a set. Built by `load_rubrics`.

    Args:
        rubrics: by (criterion, form), as `KINDS` lists them.
    """

    def __init__(self, rubrics: dict[tuple[str, str], Rubric]) -> None:
        self._rubrics = rubrics

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every rubric, `SET/CRITERION.FORM@VERSION-DIGEST`, sorted: together they say what a judge is asked with."""
        return tuple(sorted(rubric.name for rubric in self._rubrics.values()))

    def can_render(self, request: JudgeRequest) -> bool:
        """Whether the set has a rubric for it: not each has one for harmfulness."""
        form = "pairwise" if len(request.responses) == 2 else "pointwise"
        return request.criterion != "harmfulness" or (request.criterion, form) in self._rubrics

    def render(self, request: JudgeRequest) -> tuple[tuple[Message, ...], str]:
        """The judge's chat prompt for a request, and the rubric's name."""
        rubric = self._find(request)
        shown = ("response",) if len(request.responses) == 1 else ("response_A", "response_B")
        texts = {"query": request.query, **dict(zip(shown, request.responses, strict=True))}
        return ({"role": "user", "content": rubric.render(texts)},), rubric.name

    def count_longest(self, count_tokens: Callable[[str], int], form: Form = "pairwise") -> int:
        """Tokens of the longest rubric that a game of that form asks with, its fence included and the texts left out.

        Args:
            count_tokens: of a user message in the judge's chat prompt.
        """
        asked = [rubric for (_, kind), rubric in self._rubrics.items() if kind in (form, "harmful", "benign")]
        return max(count_tokens(r.render(dict.fromkeys(r.parts[1::2], ""))) for r in asked)

    def _find(self, request: JudgeRequest) -> Rubric:
        if request.criterion == "faithfulness":
            return self._rubrics[request.criterion, request.category]
        return self._rubrics[request.criterion, "pairwise" if len(request.responses) == 2 else "pointwise"]


def is_topic_drift(request: JudgeRequest) -> bool:
    """Whether an attack on a benign seed is too long: it then counts as unfaithful, whatever it says (GAME.md 3).

    Checked here, because a language model cannot measure lengths.
    """
    benign = request.criterion == "faithfulness" and request.category == "benign"
    return benign and len(request.responses[0]) > MAX_BENIGN_GROWTH * len(request.query)


def load_rubrics(where: str) -> Rubrics:
    """Reads a set of rubrics, all of it.

    Args:
        where: `judge.rubrics` of a recipe: the name of a set that comes with AdvGame, or a folder.

    Raises:
        UserError: no such set, a missing file, or a file of another form than the module's docstring gives.
    """
    folder = _find_set(where)
    if not folder.is_dir():
        known = sorted(x.name for x in SETS.iterdir() if x.is_dir() and REWORDED not in x.name)
        raise UserError(
            f"judge.rubrics: {where!r} is neither a known set ({', '.join(known)}) nor a folder; name a set, or a folder with "
            f"the {len(KINDS)} files that judge/texts/standard has"
        )
    more = tuple(kind for kind in OPTIONAL if (folder / f"{kind[0]}.{kind[1]}.md").is_file())
    return Rubrics({(criterion, form): _read(folder, criterion, form) for criterion, form in (*KINDS, *more)})


def find_rewordings(where: str) -> tuple[str, ...]:
    """The sets beside a set of rubrics that say the same in other words, `SET.reworded-1` and so on, for `load_rubrics`."""
    folder = _find_set(where)
    beside = sorted(
        x.name for x in folder.absolute().parent.glob(f"{glob.escape(folder.absolute().name)}{REWORDED}*") if x.is_dir()
    )
    return tuple(name if folder.parent == SETS else str(folder.absolute().parent / name) for name in beside)


def _find_set(where: str) -> Path:
    shipped = SETS / where
    return shipped if shipped.parent == SETS and shipped.is_dir() else Path(where)


def _read(folder: Path, criterion: str, form: str) -> Rubric:
    path = folder / f"{criterion}.{form}.md"
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        raise UserError(
            f"judge.rubrics: {folder} has no {path.name}; add it, judge/texts/standard/{path.name} is an example"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(
            f"judge.rubrics: {path} cannot be read ({type(e).__name__}); give a text file in UTF-8"
        ) from None
    opened, header, body = text.split("---\n", 2) if text.count("---\n") >= 2 else ("no header", "", "")
    if opened:
        raise UserError(f"{path}: no header; begin the file with the lines '---', 'version: 1', '---'")
    version, nonce = _header(header, path)
    digest = hashlib.blake2b(raw, digest_size=4).hexdigest()
    parts = tuple(_PLACEHOLDER.split(body.strip()))
    _check_body(parts, PLACEHOLDERS[form], path)
    return Rubric(f"{folder.resolve().name}/{criterion}.{form}@{version}-{digest}", nonce, parts)


def _header(header: str, path: Path) -> tuple[int, bool]:
    values: dict[str, str] = {}
    for line in filter(str.strip, header.split("\n")):
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or key in values or key not in ("version", "nonce"):
            raise UserError(f"{path}: header line {line.strip()!r} is unknown or repeated; known keys: version, nonce")
        values[key] = value
    if not re.fullmatch(r"[0-9]{1,9}", values.get("version", "")):
        raise UserError(
            f"{path}: version {values.get('version')!r} is no whole number; write 'version: 1' in the header"
        )
    if values.get("nonce", "true") not in ("true", "false"):
        raise UserError(f"{path}: nonce {values['nonce']!r} is neither true nor false; write one of them")
    return int(values["version"]), values.get("nonce", "true") == "true"


def _check_body(parts: tuple[str, ...], wanted: tuple[str, ...], path: Path) -> None:
    found, shown = parts[1::2], ", ".join(f"{{{name}}}" for name in wanted)
    for name in found:
        if name not in wanted:
            raise UserError(f"{path}: placeholder {{{name}}} is unknown here; this rubric takes {shown}, each once")
    for name in wanted:
        if found.count(name) != 1:
            raise UserError(f"{path}: placeholder {{{name}}} occurs {found.count(name)} times; write it exactly once")
    for name in wanted:
        for tag in tags(name, None):
            if any(tag in part for part in parts[::2]):
                raise UserError(
                    f"{path}: {tag} stands in the rubric's own text; leave it out, placeholders bring their tags"
                )


def check_context(
    rubrics: Rubrics,
    count_tokens: Callable[[str], int],
    query_tokens: int,
    response_tokens: int,
    judge_tokens: int,
    limit: int,
    where: str,
    form: Form = "pairwise",
) -> None:
    """Refuses a judge whose context cannot hold the longest question and its answer.

    Args:
        count_tokens: of a user message in the judge's chat prompt.
        query_tokens: the longest query: an attack prompt, or a seed.
        response_tokens: the longest response.
        judge_tokens: the judge's own `max_new_tokens`.
        limit: tokens that the judge takes, prompt and answer.
        where: the key that sets `limit`.

    Raises:
        UserError: with the numbers.
    """
    rubric = rubrics.count_longest(count_tokens, form)
    shown = 2 if form == "pairwise" else 1
    total = rubric + query_tokens + shown * response_tokens + judge_tokens
    if total > limit:
        responses = f"2 responses of {response_tokens}" if shown == 2 else f"response {response_tokens}"
        raise UserError(
            f"{where}: rubric {rubric} + query {query_tokens} + {responses} + verdict {judge_tokens} = {total} tokens, "
            f"the judge takes {limit}; raise it to at least {total}, or lower sampling.max_new_tokens or "
            "judge.sampling.max_new_tokens"
            + (", or leave out the longest seeds" if query_tokens > response_tokens else "")
        )
