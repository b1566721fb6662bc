"""The judge's probe: a run has the same labelled questions judged again and again, to see whether the judge changes.

Every judgement is kept in `probe.jsonl` of the run directory, with its scores, so that a resumed run goes on comparing with the
same first one. A question that failed the first time is compared with its first verdict that could be read. The sampling seeds are
the same each time, so a change is the judge's.

It does not know when to ask (the run does) or how much drift is too much.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import structlog

from cluster.inputs.labels import Label
from cluster.measure.agreement import accuracy
from cluster.measure.outcomes import Outcome, judge_labels
from cluster.rundir import RunDir, resume_from
from protocol.files import write_file
from protocol.types import JudgeRequest, Verdict

_log = structlog.get_logger(__name__)

IN_FLIGHT = 8  # labels asked about at once: enough to fill a batch, and the games go on


class FreshJudge(Protocol):
    """A judge with a cache that a call can bypass."""

    async def judge(self, requests: Sequence[JudgeRequest], fresh: bool = False) -> list[Verdict]:
        """One verdict for each request, in that order; with `fresh` none of them from the cache."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What is kept of one label's verdicts: the answer in one word, and the scores. Both are None where it failed."""

    word: str | None
    scores: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One judgement of the whole set. Fractions and `drift` are None where nothing could be compared.

    Attributes:
        n, failed: labels, and those without an answer.
        drift: mean absolute change of a label's scores since its first judgement, in points of 10.
        changed: fraction of the labels whose answer is another one than at first.
        accuracy: fraction of the answers that equal their label.
    """

    step: int
    n: int
    failed: int
    drift: float | None
    changed: float | None
    accuracy: float | None


def compare(first: Sequence[Answer], now: Sequence[Answer]) -> tuple[float | None, float | None]:
    """(drift, changed) between two judgements of the same labels. A failure on either side is not compared."""
    both = [(a, b) for a, b in zip(first, now, strict=True) if a.word is not None and b.word is not None]
    moved = [
        sum(abs(x - y) for x, y in zip(a.scores, b.scores, strict=True)) / len(a.scores)
        for a, b in both
        if a.scores is not None and b.scores is not None
    ]
    changed = [a.word != b.word for a, b in both]
    return _mean(moved), _mean(changed)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def first_answers(judgements: Sequence[Sequence[Answer]]) -> list[Answer]:
    """Each label's first answer, over the judgements in their order; a failure where it never got one."""
    return [
        next((a for a in of_label if a.word is not None), of_label[0]) for of_label in zip(*judgements, strict=True)
    ]


def read_probe(run_dir: RunDir) -> list[dict[str, Any]]:
    """The judgements of an earlier part of the run; none where there is no file. Raises `UserError` if it is damaged."""
    path = run_dir.probe
    if not path.is_file():
        return []
    with resume_from(path, "put a whole copy back, or move it away: the judge is compared with its next answers then"):
        records: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for record in records:
            int(record["step"]), str(record["labels"]), [_read_answer(answer) for answer in record["answers"]]
        return records


class ProbeSet:
    """A labelled set and where its judgements are kept.

    Args:
        labels: the questions; at least one.
        judge: the run's.
        run_dir: `probe.jsonl` is read from here and written here.
        seed: the run's.
    """

    def __init__(self, labels: Sequence[Label], judge: FreshJudge, run_dir: RunDir, seed: int) -> None:
        self._labels, self._judge, self._file, self._seed = labels, judge, run_dir.probe, seed
        self._digest = hashlib.blake2b(json.dumps([asdict(x) for x in labels]).encode(), digest_size=8).hexdigest()
        self._records = read_probe(run_dir)

    @property
    def last_step(self) -> int | None:
        """The step of the newest judgement of this very set; None before the first."""
        return max((r["step"] for r in self._records_of_set()), default=None)

    async def judge_once(self, step: int) -> ProbeResult:
        """Judges the set and keeps the result. A judge that is down fails labels; it raises nothing.

        Args:
            step: of the run, for the record.
        """

        async def ask(requests: list[JudgeRequest]) -> list[Verdict]:
            return await self._judge.judge(requests, fresh=True)

        outcomes = await judge_labels(ask, self._labels, self._seed, IN_FLIGHT)
        now = [Answer(o.answer, o.scores) for o in outcomes]
        earlier = [[_read_answer(kept) for kept in r["answers"]] for r in self._records_of_set()]
        drift, changed = compare(first_answers([*earlier, now]), now)
        right = accuracy(outcomes)
        result = ProbeResult(
            step=step,
            n=len(now),
            failed=sum(a.word is None for a in now),
            drift=drift,
            changed=changed,
            accuracy=None if right is None else right.value,
        )
        self._keep(result, outcomes, now)
        return result

    def _records_of_set(self) -> list[dict[str, Any]]:
        """The records of these very labels. Those of a set that was edited since stay in the file and are not compared."""
        return [r for r in self._records if r["labels"] == self._digest]

    def _keep(self, result: ProbeResult, outcomes: Sequence[Outcome], answers: Sequence[Answer]) -> None:
        verdicts = [v for o in outcomes for v in o.verdicts]
        self._records.append(
            asdict(result)
            | {
                "time": round(time.time(), 1),
                "labels": self._digest,
                "judges": sorted({v.judge_id for v in verdicts}),
                "rubrics": sorted({v.rubric for v in verdicts}),
                "answers": [asdict(a) for a in answers],
            }
        )
        write_file(self._file, "".join(json.dumps(r, allow_nan=False) + "\n" for r in self._records))


class Prober:
    """Has a `ProbeSet` judged at the first call of `judge_if_due` and every `every` steps, in a task of its own beside the run.

    `latest` is the newest result, None before the first.
    """

    def __init__(self, probe: ProbeSet, every: int) -> None:
        self._probe, self._every = probe, every
        self._task: asyncio.Task[ProbeResult] | None = None
        self.latest: ProbeResult | None = None

    def judge_if_due(self, step: int) -> None:
        """Starts a judgement if one is due at `step` and none is under way. Raises what the last one raised."""
        if self._task is not None:
            if not self._task.done():
                return
            task, self._task = self._task, None
            self.latest = task.result()
        last = self._probe.last_step
        if last is None or step // self._every > last // self._every:
            self._task = asyncio.create_task(self._probe.judge_once(step))

    async def finish(self, step: int, limit_s: float) -> None:
        """The last judgement of the run, unless `step` was judged already; given up after `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                if self._task is not None:
                    task, self._task = self._task, None
                    self.latest = await task
                if self._probe.last_step != step:
                    self.latest = await self._probe.judge_once(step)
        except TimeoutError:
            _log.warning("the last probe was given up", step=step, limit_s=limit_s)

    def close(self) -> None:
        """Gives up a judgement that is under way; nothing of it is kept."""
        if self._task is not None:
            self._task.cancel()


def _read_answer(kept: dict[str, Any]) -> Answer:
    return Answer(kept["word"], None if kept["scores"] is None else tuple(kept["scores"]))
