"""Engines and judges that only take time: for benchmarks of what is around them. Fakes, never called end-to-end.

A stub has `slots` places; each sample or verdict holds one for as long as its seed says (lognormal around `seconds`), so the same
game costs the same work whoever plays it and whenever. Many stubs live in one host process, because a machine that can hold
hundreds of idle engines is not needed to see whether the coordination around them keeps up; the rollout workers' pools see one
handle for each stub, and every call is a real Ray call to another process.
"""

import asyncio
import functools
import math
import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.exchange import Batch, Replies, Vitals
from protocol.inbox import Inbox
from protocol.randomness import derive_seed
from protocol.recipe import Recipe, parse_recipe
from protocol.roles import Category
from protocol.types import Ask, Completion, JudgeRequest, Seed, Verdict, as_array

TEXTS = 1_000  # different ones
PROMPT = as_array("i", range(48))
SIGMA = 0.4  # of the logarithm of a duration: the longest of a hundred takes 2.5 times as long as the median
WORDS = (
    "one",
    "two",
    "six",
    "ten",
    "red",
    "sea",
    "sun",
    "day",
    "cup",
    "map",
    "owl",
    "pen",
    "ink",
)  # four characters a token


@dataclass(frozen=True)
class StubSpec:
    """`count` stubs of `slots` places, `seconds` a sample (mean), completions of `tokens` tokens."""

    count: int
    slots: int
    seconds: float
    tokens: int = 128


def duration(seed: int, mean_s: float) -> float:
    """Seconds, lognormal with that mean; the same for the same seed."""
    if mean_s == 0.0:
        return 0.0
    return mean_s * math.exp(random.Random(seed).gauss(-(SIGMA**2) / 2, SIGMA))


@functools.cache
def make_text(attack: bool, tokens: int, which: int) -> "tuple[array[int], array[float], str]":
    """Token ids, log-probabilities and text of a completion. Made once: what an engine computes is not what is measured."""
    ids = as_array("i", [(which + k) % 30_000 for k in range(tokens)])
    said = " ".join(WORDS[(which + k) % len(WORDS)] for k in range(tokens))
    return ids, as_array("f", (-0.5,) * tokens), f"<think>{said}</think><prompt>{said}</prompt>" if attack else said


class StubHost:
    """All stubs of one process. Made a Ray actor by whoever uses it."""

    def __init__(self, specs: dict[str, StubSpec]) -> None:
        self._specs = specs
        self._places = {r: [asyncio.Semaphore(s.slots) for _ in range(s.count)] for r, s in specs.items()}
        self._versions: dict[str, int] = dict.fromkeys(specs, 0)
        self._busy_s: dict[str, float] = dict.fromkeys(specs, 0.0)
        self._stubs = {(r, k): _Stub(self, r, k) for r, s in specs.items() for k in range(s.count)}

    async def set_version(self, role: str, version: int) -> None:
        """What the role's stubs serve from now on."""
        self._versions[role] = version

    async def busy(self) -> dict[str, float]:
        """Seconds of places held so far, by role."""
        return dict(self._busy_s)

    async def exchange(self, role: str, which: int, caller: str, batch: Batch, wait_s: float) -> Replies:
        """That stub's."""
        return await self._stubs[role, which].inbox.exchange(caller, batch, wait_s)

    async def health(self, role: str, which: int) -> Vitals:
        """That stub's."""
        return self._stubs[role, which].inbox.vitals()

    async def _hold(self, role: str, which: int, seed: int) -> None:
        seconds = duration(seed, self._specs[role].seconds)
        if seconds:
            async with self._places[role][which]:
                await asyncio.sleep(seconds)
        self._busy_s[role] += seconds

    async def sample(self, role: str, which: int, seed: int) -> Completion:
        first = self._versions[role]
        await self._hold(role, which, seed)
        ids, logprobs, text = make_text(role == "attacker", self._specs[role].tokens, seed % TEXTS)
        return Completion.of(PROMPT, ids, logprobs, text, "stop", first, self._versions[role])

    async def verdict(self, role: str, which: int, request: JudgeRequest) -> Verdict:
        await self._hold(role, which, request.seed)
        rubric = f"stub/{request.criterion}@1"
        if request.criterion == "faithfulness":
            return Verdict("stub", rubric, faithful=True)
        scores = tuple(float(derive_seed(0, text, request.criterion) % 11) for text in request.responses)
        return Verdict("stub", rubric, scores=scores)


class _Stub:
    """One stub of a host. It takes asks of generation workers and of judge workers."""

    def __init__(self, host: StubHost, role: str, which: int) -> None:
        self._host, self._role, self._which = host, role, which
        self.inbox = Inbox(self._answer, lambda: Vitals(ready=True))

    async def _answer(self, body: Ask | Sequence[JudgeRequest], begin: Callable[[], None]) -> list[Any]:
        begin()
        place = self._role, self._which
        if isinstance(body, Ask):
            return list(await asyncio.gather(*(self._host.sample(*place, seed) for seed in body.seeds)))
        return list(await asyncio.gather(*(self._host.verdict(*place, request) for request in body)))


class _Method:
    def __init__(self, host: Any, name: str, *place: Any) -> None:
        self._host, self._name, self._place = host, name, place

    def options(self, **options: Any) -> "_Method":
        return self

    def remote(self, *arguments: Any) -> Any:
        return getattr(self._host, self._name).remote(*self._place, *arguments)


class StubHandle:
    """Stands for a worker's handle: its calls go to the host."""

    def __init__(self, host: Any, role: str, which: int) -> None:
        self.exchange = _Method(host, "exchange", role, which)
        self.health = _Method(host, "health", role, which)


def seeds(n: int = 512) -> list[Seed]:
    """Mild seeds, half of each category."""
    categories: tuple[Category, Category] = ("harmful", "benign")
    return [Seed(f"s{k}", f"tell me about thing number {k}", categories[k % 2]) for k in range(n)]


def recipe_of(**sections: Any) -> Recipe:
    """A recipe for stubs: games as in the paper, no cache of verdicts, long deadlines."""
    values: dict[str, Any] = {
        "run": {"name": "bench", "steps": 1_000_000},
        "models": {"attacker": {"path": "stub"}, "defender": {"path": "stub"}},
        "judge": {"cache_entries": 0, "deadline_s": 300.0},
        "generation": {"backpressure": None},
    }
    for name, given in sections.items():
        values[name] = {**values[name], **given} if isinstance(given, dict) and name in values else given
    return parse_recipe(values)
