"""What the parts hand to each other while a game is played.

Every type is frozen and picklable. None of them decides anything: the rules are in `game` and `preferences`.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from protocol.roles import Category
from protocol.states import AttackState, ResponseState, State

Criterion = Literal[
    "compliance", "deflection", "refusal", "faithfulness", "harmfulness"
]  # the last: `evaluate` alone asks
Finish = Literal["stop", "length", "no_room"]
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}, as chat templates read it


@dataclass(frozen=True, slots=True)
class Seed:
    """A short query that a game is played about."""

    id: str
    text: str
    category: Category


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a completion is drawn. `max_new_tokens` counts tokens; the rest has no unit.

    `seeded`: the seeds of an ask decide what is drawn; else every draw is a new one.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    seeded: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """One chat prompt and the samples wanted of it: one sample for each entry of `seeds`.

    `pattern` is a regular expression that the whole completion is held to while it is decoded; None leaves it free.
    """

    id: str
    messages: tuple[Message, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    pattern: str | None = None

    @property
    def game(self) -> str:
        """What it is asked for: the id of a game, or "heldout"."""
        return self.id.partition("-")[0]


def as_array(code: Literal["i", "f"], numbers: Iterable[Any]) -> "array[Any]":
    """The numbers as int32 ('i') or float32 ('f'); the same object where they are that already."""
    if isinstance(numbers, array) and numbers.typecode == code:
        return numbers
    return array(code, numbers)


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer. `of` makes one from any numbers.

    The numbers are stdlib arrays, 'i' and 'f' (int32 and float32, as a row stores them), because those pickle as bytes and Arrow
    reads them where they lie. Nobody changes them. Completions with equal numbers are equal; an array equals no tuple or list,
    and for the arrays' sake a completion, and what holds one, has no hash.

    `token_ids` and `logprobs` have the same length; the log-probabilities are the sampler's, natural logarithm, of the
    unmodified distribution (temperature 1, no truncation), and the end-of-turn token is included when it was sampled. Judges'
    completions have no log-probabilities, and an endpoint's no token ids either.
    `first_version` and `last_version` are the policy versions that the first and the last token were sampled under.
    """

    prompt_ids: "array[int]"
    token_ids: "array[int]"
    logprobs: "array[float]"
    text: str
    finish: Finish
    first_version: int
    last_version: int

    @classmethod
    def of(
        cls,
        prompt_ids: Iterable[int] = (),
        token_ids: Iterable[int] = (),
        logprobs: Iterable[float] = (),
        text: str = "",
        finish: Finish = "stop",
        version: int = 0,
        last_version: int | None = None,
    ) -> Self:
        """From any numbers; arrays of the right type are taken as they are, so that samples of one prompt can share it.

        Args:
            version: the first; the last too, unless `last_version` is given.

        Raises:
            OverflowError: a token id is no int32.
        """
        last = version if last_version is None else last_version
        ids = as_array("i", prompt_ids), as_array("i", token_ids)
        return cls(*ids, as_array("f", logprobs), text, finish, version, last)


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One question to a judge.

    `responses` holds two texts for a pairwise question (A, then B) and one for a pointwise one. For `faithfulness` the query
    is the seed and the single response is the attack prompt. `seed` makes a sampling judge repeatable.
    """

    criterion: Criterion
    category: Category
    query: str
    responses: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer: numbers or a failure, never both.

    `scores` has one entry in [0, 10] for each response asked about, `faithful` is set instead for the criterion of that
    name, and `failure` says in a word why there is neither (then both are None).
    """

    judge_id: str
    rubric: str
    scores: tuple[float, ...] | None = None
    faithful: bool | None = None
    failure: str | None = None
    raw: str = ""
    remembered: bool = field(default=False, compare=False)  # no judge was asked for it this time

    def __post_init__(self) -> None:
        given = [self.scores is not None, self.faithful is not None, self.failure is not None]
        if sum(given) != 1:
            raise ValueError("a verdict has exactly one of scores, faithful and failure")
        if self.scores is not None and not all(0.0 <= s <= 10.0 for s in self.scores):
            raise ValueError(f"verdict scores {self.scores} leave [0, 10]")


@dataclass(frozen=True, slots=True)
class Preference:
    """How items i and j of a group compared. Scores are (i's, j's); `swapped` is None when only one order was asked.

    `winner` is i or j; None is a tie (equal, or the two orders disagreed).
    """

    i: int
    j: int
    forward: tuple[float, float]
    swapped: tuple[float, float] | None
    winner: int | None
    agreed: bool


@dataclass(frozen=True, slots=True)
class Item:
    """One attack or response, in its final state. `reward` is None where GAME.md says "excluded"."""

    completion: Completion
    state: State
    reward: float | None
    visible: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The judged items of one player on one input: what becomes a replay row."""

    game_id: int
    player: Literal["attacker", "defender"]
    index: int  # 0 for the attacker's group; the attack's place for a defender's group
    seed_id: str
    category: Category
    items: tuple[Item, ...]
    preferences: tuple[Preference, ...]
    verdicts: tuple[Verdict, ...]
    opponent_version: int | None  # the oldest that answered; None: no attack was valid, so nobody did

    @property
    def row_id(self) -> str:
        """Unique in a run and the same if the game is dealt again."""
        return f"{self.game_id}/{self.player}/{self.index}"

    @property
    def version(self) -> int:
        """The oldest policy version that any token of the group was sampled under."""
        return min(item.completion.first_version for item in self.items)


@dataclass(frozen=True, slots=True)
class GameRecord:
    """A finished game: its groups, and how every attack and response ended (asked or not)."""

    game_id: int
    seed: Seed
    groups: tuple[Group, ...]
    attack_states: tuple[AttackState, ...]
    response_states: tuple[ResponseState, ...]
    verdicts: int
    verdicts_failed: int
    disagreements: int = 0
    comparisons: int = 0


@dataclass(frozen=True, slots=True)
class Deal:
    """A game to play: the id decides the seed and every sampling seed."""

    game_id: int
    seed: Seed


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Where one tensor lies in a packed weight buffer. `dtype` is torch's name without the prefix, for example "bfloat16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class WeightManifest:
    """What a push carries: Hugging Face names, in order, and a checksum (xxh3, 128 bits, hex) over the packed bytes.

    `last`: no version of this player follows, so that every generation worker takes it, whatever its period.
    """

    player: Literal["attacker", "defender"]
    version: int
    tensors: tuple[TensorSpec, ...]
    nbytes: int
    checksum: str
    step: int = 0  # optimizer steps that the weights contain
    last: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """What whoever takes versions over holds of one player's, at one moment: whole, so that an answer that is lost loses nothing.

    Attributes:
        holder: names its process. Under another name, nobody knows who reads what was left with the one before.
        versions: those whose bytes are read, or may be.
    """

    holder: str
    versions: frozenset[int]


@dataclass(frozen=True, slots=True)
class NativeUpdate:
    """Stands for a version's bytes where they go from GPU to GPU: what vLLM's sending end tells its receiving end.

    Plain: strings, numbers, bytes, lists and dicts of them.
    """

    info: dict[str, Any]
