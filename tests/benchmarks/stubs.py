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
from collections import deque
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


@functools.cache
def list_factors() -> list[float]:
    """Of durations: lognormal, with a mean of 1. Made once: a generator for each seed costs more than the rest of a stub."""
    made = random.Random(0)
    return [math.exp(made.gauss(-(SIGMA**2) / 2, SIGMA)) for _ in range(4096)]


def duration(seed: int, mean_s: float) -> float:
    """Seconds; the same for the same seed."""
    factors = list_factors()
    return mean_s * factors[seed % len(factors)]


@functools.cache
def make_text(attack: bool, tokens: int, which: int) -> "tuple[array[int], array[float], str]":
    """Token ids, log-probabilities and text of a completion. Made once: what an engine computes is not what is measured."""
    ids = as_array("i", [(which + k) % 30_000 for k in range(tokens)])
    said = " ".join(WORDS[(which + k) % len(WORDS)] for k in range(tokens))
    return ids, as_array("f", (-0.5,) * tokens), f"<think>{said}</think><prompt>{said}</prompt>" if attack else said


class Places:
    """The places of one stub. Cheaper than a semaphore and a task for each sample: what a stub costs is not what is measured."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._held: dict[asyncio.Future[None], asyncio.TimerHandle] = {}

    def hold(self, seconds: float) -> "asyncio.Future[None]":
        """Done when a place was held for so long. Cancelled, it gives its place back."""
        done = asyncio.get_running_loop().create_future()
        if self._free:
            self._begin(seconds, done)
        else:
            self._waiting.append((seconds, done))
        return done

    def give_up(self, done: "asyncio.Future[None]") -> None:
        """Nobody waits for it any more."""
        done.cancel()
        if done in self._held:
            self._held.pop(done).cancel()
            self._pass_on()

    def _begin(self, seconds: float, done: "asyncio.Future[None]") -> None:
        self._free -= 1
        self._held[done] = asyncio.get_running_loop().call_later(seconds, self._end, done)

    def _end(self, done: "asyncio.Future[None]") -> None:
        del self._held[done]
        if not done.done():
            done.set_result(None)
        self._pass_on()

    def _pass_on(self) -> None:
        self._free += 1
        while self._waiting and self._free:
            seconds, done = self._waiting.popleft()
            if not done.done():
                self._begin(seconds, done)


class StubHost:
    """All stubs of one process. Made a Ray actor by whoever uses it."""

    def __init__(self, specs: dict[str, StubSpec]) -> None:
        self._specs = specs
        self._places = {r: [Places(s.slots) for _ in range(s.count)] for r, s in specs.items()}
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

    async def hold(self, role: str, which: int, seeds: Sequence[int]) -> None:
        """Until that stub had a place for each of these, for as long as it takes."""
        places, mean_s = self._places[role][which], self._specs[role].seconds
        if mean_s:
            lasting = [duration(seed, mean_s) for seed in seeds]
            held = [places.hold(seconds) for seconds in lasting]
            try:
                for one in held:
                    await one
            finally:
                for one in held:
                    places.give_up(one)
            self._busy_s[role] += sum(lasting)

    def version_of(self, role: str) -> int:
        """What the role's stubs serve."""
        return self._versions[role]

    def sample(self, role: str, seed: int, first: int) -> Completion:
        """A completion that was begun under version `first`."""
        ids, logprobs, text = make_text(role == "attacker", self._specs[role].tokens, seed % TEXTS)
        return Completion.of(PROMPT, ids, logprobs, text, "stop", first, self._versions[role])

    def verdict(self, request: JudgeRequest) -> Verdict:
        """Of a judge that likes everything faithful, and each text as its seed says."""
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
        if isinstance(body, Ask):
            first = self._host.version_of(self._role)
            await self._host.hold(self._role, self._which, body.seeds)
            return [self._host.sample(self._role, seed, first) for seed in body.seeds]
        await self._host.hold(self._role, self._which, [request.seed for request in body])
        return [self._host.verdict(request) for request in body]


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
