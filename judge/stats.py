"""What the judge's side counts of itself: the pool in a rollout worker, each judge worker, and the generator that writes for it.

Frozen and picklable; they add up over workers. Who shows them or writes them down is not this module's question.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A `pool.JudgePool` since it was made.

    Attributes:
        verdicts: given.
        failed: those of them that are failures.
        retried: requests that were asked once more.
        calls_failed: calls whose worker was dead, raised or was late.
        cache_hits: verdicts that needed no question of their own.
    """

    verdicts: int = 0
    failed: int = 0
    retried: int = 0
    calls_failed: int = 0
    cache_hits: int = 0


@dataclass(frozen=True, slots=True)
class EngineUsage:
    """A judge engine since it was built.

    Attributes:
        completions: written.
        tokens: in them.
        prompt_tokens: read.
        cached_tokens: of the prompt tokens, those that the prefix cache held.
    """

    completions: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def samples(self) -> int:
        """Texts written."""
        return self.completions


@dataclass(frozen=True, slots=True)
class ApiUsage:
    """An endpoint: `unanswered` in this process, the rest since the ledger was begun.

    Attributes:
        unanswered: samples that got no answer, after the retries.
        requests: sent.
        retries: among the requests.
        unmetered: requests whose tokens nobody told: what was reserved for them counts as spent.
        tokens_in, tokens_out: prompt and completion tokens paid for.
        cost: of them, in the currency of the prices.
        budget_left: currency that is neither spent nor reserved; None without such a budget.
        budget_tokens_left: the same in tokens.
    """

    unanswered: int = 0
    requests: int = 0
    retries: int = 0
    unmetered: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    budget_left: float | None = None
    budget_tokens_left: int | None = None

    @property
    def samples(self) -> int:
        """Texts asked for."""
        return self.requests


Usage = EngineUsage | ApiUsage


@runtime_checkable
class Metered(Protocol):
    """A generator that counts what it does."""

    def usage(self) -> Usage:
        """What it used so far."""
        ...


@runtime_checkable
class Monitored(Protocol):
    """A generator with an engine that may stand still or die."""

    @property
    def steps(self) -> int:
        """Of the engine, so far."""
        ...

    async def check_health(self) -> None:
        """Does not return if the engine is known to be dead."""
        ...


@dataclass(frozen=True, slots=True)
class JudgeStats:
    """A judge worker since its process started, or several of them together.

    Attributes:
        calls: answered.
        verdicts: in them.
        failed: those of them that are failures.
        unread: samples without a verdict that can be read, by reason; empty for a judge that writes nothing.
        usage: what the generator used; None for a judge that writes nothing.
        busy_s: seconds with at least one question in hand, summed over the workers.
    """

    calls: int = 0
    verdicts: int = 0
    failed: int = 0
    unread: Mapping[str, int] = field(default_factory=dict)
    usage: Usage | None = None
    busy_s: float = 0.0

    @property
    def unread_rate(self) -> float | None:
        """Share of the samples that could not be read; None before the first, and for a judge that writes nothing."""
        return sum(self.unread.values()) / self.usage.samples if self.usage and self.usage.samples else None

    @property
    def cost(self) -> float | None:
        """What an endpoint has cost, in the currency of its prices; None for other judges."""
        return self.usage.cost if isinstance(self.usage, ApiUsage) else None


def add_judges(workers: Iterable[JudgeStats]) -> JudgeStats:
    """The workers of one run together; all of them judge the same way."""
    calls = verdicts = failed = 0
    unread: Counter[str] = Counter()
    usage: Usage | None = None
    busy_s = 0.0
    for worker in workers:
        calls, verdicts, failed = calls + worker.calls, verdicts + worker.verdicts, failed + worker.failed
        unread.update(worker.unread)
        usage = _add_usages(usage, worker.usage)
        busy_s += worker.busy_s
    return JudgeStats(calls, verdicts, failed, dict(unread), usage, busy_s)


def add_pools(pools: Iterable[PoolStats]) -> PoolStats:
    """The pools of several processes together."""
    counts = [astuple(pool) for pool in pools]
    return PoolStats(*(sum(column) for column in zip(*counts, strict=True)))


def _add_usages(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return type(one)(**{f.name: _add(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)})


def _add(one: float | None, other: float | None) -> Any:
    return one if other is None else other if one is None else one + other
