"""The judge worker: one judge behind a queue of calls. `cluster` makes it a Ray actor; here it is an ordinary async class.

Only `start` builds the judge that the recipe names. Until then, and in an actor that Ray restarted, the worker is not ready and
takes no questions. A caller that gives up meanwhile does not stop the build. It counts what it answered. It does not retry: `pool`
does.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from judge.identity import NO_JUDGE, judge_id_of
from judge.lm import LMJudge
from judge.match.judge import MatchJudge
from judge.match.tables import load_tables
from judge.rubric import load_rubrics
from judge.stats import ApiUsage, JudgeStats, Metered, Monitored, Usage
from protocol import metrics as m
from protocol.errors import trail
from protocol.exchange import Batch, NotReady, Replies, Vitals
from protocol.inbox import Inbox
from protocol.interfaces import Generator, Judge
from protocol.meter import meter
from protocol.recipe import JudgeConfig
from protocol.types import JudgeRequest, Verdict

Build = Callable[[], Awaitable[Generator]]

_log = structlog.get_logger(__name__)


def _count_usage(usage: Usage) -> None:
    """Sets the metrics of what a generator used."""
    if isinstance(usage, ApiUsage):
        read, written = usage.tokens_in, usage.tokens_out
        meter().total(m.JUDGE_COST, usage.cost)
    else:
        read, written = usage.prompt_tokens, usage.tokens
    meter().total(m.JUDGE_TOKENS, read, direction="read")
    meter().total(m.JUDGE_TOKENS, written, direction="written")


class NoJudge:
    """The judge of `judge.kind: none`: every verdict is a failure, so that no score is ever invented."""

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """A failure for each request."""
        return [Verdict("none", f"none/{request.criterion}", failure=NO_JUDGE) for request in requests]


class JudgeWorker:
    """Answers batches of requests.

    Args:
        config: the recipe's `judge` section.
        judge_id: names the judge in verdicts; by default `judge_id_of(config)`.
        build: makes the generator of kind `lm`, in this process.
        ledger: where kind `api` keeps its account of tokens and money; None keeps it in memory.
        rules: makes the judge of kind `rules`.

    Raises:
        ValueError: the kind's builder is missing.
    """

    def __init__(
        self,
        config: JudgeConfig,
        judge_id: str | None = None,
        build: Build | None = None,
        ledger: str | None = None,
        rules: Callable[[], Judge] | None = None,
    ) -> None:
        if (config.kind == "lm" and build is None) or (config.kind == "rules" and rules is None):
            raise ValueError(f"judge.kind {config.kind} needs its builder")
        self._config, self._judge_id = config, judge_id or judge_id_of(config)
        self._build, self._ledger, self._rules = build, ledger, rules
        self._generator: Generator | None = None
        self._judge: Judge | None = None
        self._starting: asyncio.Task[Judge] | None = None
        self._inbox = Inbox(self._answer, self._vitals)
        self._calls = self._verdicts = self._failed = 0

    async def start(self) -> None:
        """Builds the judge unless it is built, or being built.

        Raises:
            UserError: the rubrics, the endpoint or the model folder are not as they should be.
        """
        if self._judge is None:
            if self._starting is None or self._starting.done():
                self._starting = asyncio.create_task(self._make())
            # Shielded: a caller's deadline must not tear down a half-built engine that others wait for.
            await asyncio.shield(self._starting)

    async def exchange(self, caller: str, batch: Batch, wait_s: float) -> Replies:
        """See `protocol.exchange`; an ask is a sequence of requests, its answer what `judge` gives."""
        return await self._inbox.exchange(caller, batch, wait_s)

    async def health(self) -> Vitals:
        """How the worker is. A judge whose engine is known to be dead ends its process."""
        if (engine := self._engine()) is not None:
            await engine.check_health()
        return self._inbox.vitals()

    def _vitals(self) -> Vitals:
        if self._judge is None:
            return Vitals(starting=self._starting is not None and not self._starting.done())
        engine = self._engine()
        return Vitals(ready=True, steps=None if engine is None else engine.steps)

    def _engine(self) -> Monitored | None:
        """The engine that writes the verdicts; None where none could stand still."""
        generator: object = self._generator
        return generator if isinstance(generator, Monitored) else None

    async def _answer(self, requests: Sequence[JudgeRequest], begin: Callable[[], None]) -> list[Verdict]:
        begin()  # of many texts at once: whether the engine moves says more than the first token of one
        return await self.judge(requests)

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict for each request, in that order.

        Raises:
            NotReady: the judge is not built.
            Exception: a bug of ours. It is logged here, without texts.
        """
        if self._judge is None:
            raise NotReady("the judge is not built; it must be started")
        began = time.monotonic()
        try:
            verdicts = await self._judge.judge(requests)
        except Exception as error:
            _log.error("judging failed", requests=len(requests), trail=trail(error))
            raise
        self._calls += 1
        self._verdicts += len(verdicts)
        self._failed += sum(v.failure is not None for v in verdicts)
        meter().observe(m.JUDGE_SECONDS, time.monotonic() - began)
        meter().inc(m.JUDGE_VERDICTS, len(verdicts))
        return verdicts

    async def stats(self) -> JudgeStats:
        """Counts since this process started; what it read and used is a language model's only."""
        unread = dict(self._judge.unread) if isinstance(self._judge, LMJudge) else {}
        generator: object = self._generator
        usage = generator.usage() if isinstance(generator, Metered) else None
        for reason, n in unread.items():
            meter().total(m.JUDGE_UNREAD, n, reason=reason)
        if usage is not None:
            _count_usage(usage)
        meter().total(m.JUDGE_BUSY, self._inbox.busy_s)
        return JudgeStats(self._calls, self._verdicts, self._failed, unread, usage, self._inbox.busy_s)

    async def _make(self) -> Judge:
        config = self._config
        if config.kind == "rules":
            assert self._rules is not None  # as the constructor checked
            self._judge = self._rules()
        elif config.kind == "match":
            self._judge = MatchJudge(load_tables())
        elif config.kind == "none":
            self._judge = NoJudge()
        else:
            rubrics = load_rubrics(config.rubrics)
            self._generator = await self._make_generator()
            self._judge = LMJudge(self._generator, rubrics, config, self._judge_id)
        return self._judge

    async def _make_generator(self) -> Generator:
        if self._build is not None:
            return await self._build()
        from judge.api.client import ApiGenerator  # here, because OpenAI's client takes a second to import

        ledger = None if self._ledger is None else Path(self._ledger)
        return ApiGenerator(self._config.api, ledger, self._config.sampling.left_out)
