"""The judge that is a language model: it is asked with rubrics, and its sampled verdicts are read and averaged.

It works over any `protocol.interfaces.Generator`: vLLM in this process, an API, a fake. Invariants:
- a sample that cannot be read is left out and counted by its reason; where none can be read the verdict is a failure;
- the same request gets the same sampling seeds, whoever asks and whatever else is asked in the same call. They decide what is
  sampled where `judge.sampling.seeded` is true; else a question that is asked again is simply another draw.

It does not retry (`pool` does, with another seed), restart anything or cache verdicts.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from judge.errors import GAVE_UP, JudgeUnavailable
from judge.rubric import MAX_BENIGN_GROWTH, Rubrics, is_topic_drift
from judge.sampling import fill_in
from judge.verdicts import Read, pattern, read
from protocol.interfaces import Generator
from protocol.randomness import derive_seed
from protocol.recipe import JudgeConfig
from protocol.types import Ask, Completion, JudgeRequest, Verdict

EVEN_VOTES = "even votes"
NO_RUBRIC = "no such rubric"
BETWEEN_SAMPLES = "\n\n"  # in a verdict's `raw`


def combine(reads: Sequence[Read]) -> Read:
    """One verdict from several samples: mean scores, or a strict majority of truths. Failed samples do not count.

    Returns:
        As `verdicts.parse`. All failed: the commonest reason, the first of equals. As many true as false: `EVEN_VOTES`.
    """
    votes = [r for r in reads if isinstance(r, bool)]
    if votes:
        return EVEN_VOTES if 2 * sum(votes) == len(votes) else 2 * sum(votes) > len(votes)
    scores = [r for r in reads if isinstance(r, tuple)]
    if scores:
        return tuple(sum(column) / len(scores) for column in zip(*scores, strict=True))
    return Counter(r for r in reads if isinstance(r, str)).most_common(1)[0][0]


class LMJudge:
    """A `protocol.interfaces.Judge`.

    Args:
        generator: writes the verdicts. It may leave samples out, and raises `JudgeUnavailable` when it has no text to give.
        rubrics: what it is asked with.
        config: `verdicts`, `structured` and `sampling` are used.
        judge_id: names the judge in every verdict, as in `lm:qwen2.5-32b@1a2b3c4d`.
    """

    def __init__(self, generator: Generator, rubrics: Rubrics, config: JudgeConfig, judge_id: str) -> None:
        self._generator, self._rubrics, self._config, self._judge_id = generator, rubrics, config, judge_id
        self._sampling = fill_in(config.sampling)
        self.unread: Counter[str] = Counter()  # samples without a verdict, by reason

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict for each request, in that order; they are asked side by side.

        Raises:
            ExceptionGroup: what the generator raised other than `JudgeUnavailable`.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._verdict(request)) for request in requests]
        return [task.result() for task in tasks]

    async def _verdict(self, request: JudgeRequest) -> Verdict:
        if not self._rubrics.can_render(request):
            return Verdict(self._judge_id, f"none/{request.criterion}", failure=NO_RUBRIC)
        messages, rubric = self._rubrics.render(request)
        if is_topic_drift(request):
            growth = f"more than {MAX_BENIGN_GROWTH} times as long as its seed"
            return Verdict(self._judge_id, rubric, faithful=False, raw=growth)
        form = pattern(request.criterion, len(request.responses), self._sampling.max_new_tokens)
        ask = Ask(
            id=f"{rubric}-{request.seed}",
            messages=messages,
            seeds=tuple(derive_seed(request.seed, k) for k in range(self._config.verdicts)),
            sampling=self._sampling,
            pattern=form if self._config.structured else None,
        )
        try:
            completions = await self._generator.generate(ask)
        except JudgeUnavailable as e:
            why = GAVE_UP if e.permanent else "judge down"
            return Verdict(self._judge_id, rubric, failure=f"{why}: {e.reason}")
        return self._verdict_of(request, rubric, completions)

    def _verdict_of(self, request: JudgeRequest, rubric: str, completions: Sequence[Completion]) -> Verdict:
        reads = [read(c, request.criterion, len(request.responses)) for c in completions]
        self.unread.update(r for r in reads if isinstance(r, str))
        raw = BETWEEN_SAMPLES.join(c.text for c in completions)
        outcome = combine(reads)
        if isinstance(outcome, str):
            return Verdict(self._judge_id, rubric, failure=outcome, raw=raw)
        if isinstance(outcome, bool):
            return Verdict(self._judge_id, rubric, faithful=outcome, raw=raw)
        return Verdict(self._judge_id, rubric, scores=outcome, raw=raw)
