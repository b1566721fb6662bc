"""The judge worker: one judge behind a queue of calls. `cluster` makes it a Ray actor; here it is an ordinary async class.

It builds the judge that the recipe names and counts what it answered. It does not retry: `pool` does.
"""

from collections.abc import Sequence
from typing import assert_never

from judge.rules import RuleJudge
from protocol.interfaces import Judge
from protocol.recipe import JudgeConfig
from protocol.types import JudgeRequest, Verdict

NO_JUDGE = "no judge"


class NoJudge:
    """The judge of `judge.kind: none`: every verdict is a failure, so that no score is ever invented."""

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """A failure for each request."""
        return [Verdict("none", f"none/{request.criterion}", failure=NO_JUDGE) for request in requests]


def build_judge(config: JudgeConfig) -> Judge:
    """The judge that the recipe's `judge` section names."""
    if config.kind == "rules":
        return RuleJudge()
    if config.kind == "none":
        return NoJudge()
    assert_never(config.kind)


class JudgeWorker:
    """Answers batches of requests.

    Args:
        config: the recipe's `judge` section.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self._judge = build_judge(config)
        self._calls = self._verdicts = self._failed = 0

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict for each request, in that order."""
        verdicts = await self._judge.judge(requests)
        self._calls += 1
        self._verdicts += len(verdicts)
        self._failed += sum(v.failure is not None for v in verdicts)
        return verdicts

    async def stats(self) -> dict[str, int]:
        """Since this process started: `calls` answered, `verdicts` in them, and how many of those are failures (`failed`)."""
        return {"calls": self._calls, "verdicts": self._verdicts, "failed": self._failed}
