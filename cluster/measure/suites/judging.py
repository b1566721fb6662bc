"""Has the judge score the journalled answers that it has not scored, and the labels; every verdict journalled as it comes.

A verdict that cannot be read is asked for again, `judge.attempts` times in all, and is then kept as a failure, which is a
fact about the judge and never a score. A judge that does not answer leaves its question for the next time.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from cluster.inputs.labels import Label
from cluster.inputs.suites.suite import Item, Suite
from cluster.inputs.targets import Target
from cluster.measure.outcomes import Outcome, make_requests
from cluster.measure.suites.asking import ANSWER, GaveUp, Tell, run_at_once
from cluster.measure.suites.attempts import Attempt, criteria_of
from cluster.measure.suites.breaker import Breaker
from cluster.measure.suites.journal import Journal, Key
from judge.errors import GAVE_UP
from judge.worker import JudgeWorker
from protocol.errors import trail
from protocol.randomness import derive_seed
from protocol.recipe import JudgeConfig
from protocol.types import JudgeRequest, Verdict

VERDICT, LABEL = "verdict", "label"  # kinds of record: {"score"}, or {"failure"} with the reason
DOWN = "judge down"  # how a verdict's failure begins when no text came, and another time one may

log = structlog.get_logger(__name__)
Question = tuple[str, Key, JudgeRequest]  # the record's kind and key, and what is asked


def list_questions(
    journal: Journal,
    targets: Sequence[Target],
    suites: Sequence[Suite],
    samples: int,
    with_harmfulness: bool,
    seed: int,
) -> list[Question]:
    """What the judge has not been asked about the answers that are there."""
    questions: list[Question] = []
    for target, suite, item, sample in _all(targets, suites, samples):
        answer = journal.get(ANSWER, target.name, suite.name, item.id, sample)
        if answer is None or "text" not in answer:
            continue
        for criterion in criteria_of(item.category, with_harmfulness):
            key: Key = (target.name, suite.name, item.id, sample, criterion)
            if journal.get(VERDICT, *key) is None:
                # Not of the model's name: equal answers of two models get equal verdicts, which makes the pairs sharper.
                rng = derive_seed(seed, "evaluate-judge", suite.name, item.id, sample, criterion)
                request = JudgeRequest(criterion, item.category, item.query, (answer["text"],), rng)
                questions.append((VERDICT, key, request))
    return questions


def list_label_questions(journal: Journal, labels: Sequence[Label], seed: int) -> list[Question]:
    """The labels, all of them pointwise, that the judge has not been asked about."""
    return [
        (LABEL, (place,), make_requests(label, derive_seed(seed, "label", place))[0])
        for place, label in enumerate(labels)
        if journal.get(LABEL, place) is None
    ]


def _all(targets: Sequence[Target], suites: Sequence[Suite], samples: int) -> list[tuple[Target, Suite, Item, int]]:
    return [(t, s, item, k) for t in targets for s in suites for item in s.items for k in range(samples)]


async def ask_judge(
    worker: JudgeWorker, config: JudgeConfig, questions: Sequence[Question], journal: Journal, tell: Tell
) -> Counter[str]:
    """Asks the judge.

    Returns:
        Failures that were left for the next time, by reason.

    Raises:
        GaveUp: it refuses everything, or failed too often in a row.
        UserError: the journal cannot be written.
    """
    breaker, left, done = Breaker(), Counter[str](), 0
    slots = config.api.concurrency if config.kind == "api" else config.engine.max_num_seqs

    async def one(question: Question) -> None:
        nonlocal done
        kind, key, request = question
        verdict = await _ask(worker, config, request)
        done += 1
        tell(done, len(questions))
        failure = verdict.failure
        if failure is None or not failure.startswith((DOWN, GAVE_UP)):
            breaker.note_answer()
            journal.put(_record(verdict), kind, *key)
            return
        match breaker.note_failure(failure, failure.startswith(GAVE_UP)):
            case "keep":
                journal.put({"failure": failure}, kind, *key)
            case "leave":
                left[failure] += 1
            case "stop":
                raise GaveUp(failure)

    await run_at_once(questions, max(1, slots // config.verdicts), one)
    return left


async def _ask(worker: JudgeWorker, config: JudgeConfig, request: JudgeRequest) -> Verdict:
    deadline_s = None if config.kind == "api" else config.deadline_s  # an endpoint's attempts have their own
    verdict = Verdict("none", f"none/{request.criterion}", failure=DOWN)
    for attempt in range(config.attempts):
        try:
            async with asyncio.timeout(deadline_s):
                [verdict] = await worker.judge([replace(request, seed=request.seed + attempt)])
        except TimeoutError:
            why = f"{DOWN}: no answer in {config.deadline_s:g} s"
            verdict = Verdict("none", f"none/{request.criterion}", failure=why)
        except Exception as error:  # noqa: BLE001  # the other verdicts must not be lost; its message may quote an answer
            log.error("a verdict failed", trail=trail(error))
            verdict = Verdict("none", f"none/{request.criterion}", failure=f"{DOWN}: {type(error).__name__}")
        if verdict.failure is None or verdict.failure.startswith(GAVE_UP):
            break
    return verdict


def _record(verdict: Verdict) -> dict[str, Any]:
    about = {"judge": verdict.judge_id, "rubric": verdict.rubric}
    if verdict.scores is not None:
        return {"score": verdict.scores[0], **about}
    if verdict.faithful is not None:
        return {"faithful": verdict.faithful, **about}
    return {"failure": verdict.failure, **about}


def read_attempts(
    journal: Journal, target: Target, suites: Sequence[Suite], samples: int, with_harmfulness: bool
) -> list[Attempt]:
    """A model's attempts as the journal has them, in the order of the suites; what is missing is an attempt without an answer."""
    attempts = []
    for _, suite, item, sample in _all([target], suites, samples):
        answer: Mapping[str, str] | None = journal.get(ANSWER, target.name, suite.name, item.id, sample)
        scores: dict[str, float] = {}
        why = "" if answer is not None and "text" in answer else "not asked" if answer is None else answer["failure"]
        if not why:
            for criterion in criteria_of(item.category, with_harmfulness):
                verdict = journal.get(VERDICT, target.name, suite.name, item.id, sample, criterion)
                if verdict is not None and "score" in verdict:
                    scores[criterion] = verdict["score"]
                elif not why:
                    why = f"{criterion}: " + ("not judged" if verdict is None else verdict["failure"])
        answered = answer is not None and "text" in answer
        attempts.append(Attempt(suite.name, item.id, item.topic, item.category, sample, answered, scores, why))
    return attempts


def read_outcomes(journal: Journal, labels: Sequence[Label]) -> list[Outcome]:
    """The judge's answers to the labels that it was asked about."""
    outcomes = []
    for place, label in enumerate(labels):
        record = journal.get(LABEL, place)
        if record is not None:
            about = (record.get("judge", "none"), record.get("rubric", f"none/{label.criterion}"))
            score = record.get("score")
            failure = record.get("failure") if score is None else None
            verdict = Verdict(*about, scores=None if score is None else (score,), failure=failure)
            outcomes.append(Outcome(label, (verdict,)))
    return outcomes
