"""The judge worker and the generator that `cluster` hands it: built once, whoever asks first, and honest when lost."""

import asyncio

import pytest
import structlog

from judge.identity import judge_id_of
from judge.stats import EngineUsage, JudgeStats
from judge.worker import JudgeWorker
from protocol.errors import UserError
from protocol.exchange import Batch, NotReady, Posted, Replies, Vitals
from protocol.recipe import JudgeConfig
from protocol.types import Ask, JudgeRequest, Sampling
from tests.unit.fakes import FakeGenerator
from tests.unit.meters import RecordingMeter

LM = JudgeConfig(kind="lm", model="/models/qwen2.5-32b")
REQUEST = JudgeRequest("refusal", "benign", "fix a bike", ("no .",))
ASK = Ask("a", ({"role": "user", "content": "hello"},), (1,), Sampling(1.0, 1.0, 8))


class Builder:
    """Makes a generator, slowly, and fails the first `failures` times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.built = failures, 0
        self.go = asyncio.Event()

    async def __call__(self) -> FakeGenerator:
        self.built += 1
        await self.go.wait()
        if self.built <= self.failures:
            raise UserError("no such folder")
        return FakeGenerator(lambda ask: ["<score>9</score>"])


async def test_starts_that_come_while_the_judge_is_built_share_it() -> None:
    build = Builder()
    worker = JudgeWorker(LM, "lm:mine", build)
    starts = [asyncio.create_task(worker.start()) for _ in range(3)]
    await asyncio.sleep(0)
    starts[0].cancel()  # its deadline passed; the engine is built all the same
    await asyncio.sleep(0)
    assert await worker.health() == Vitals(starting=True)
    build.go.set()
    await asyncio.gather(*starts[1:])
    assert await worker.health() == Vitals(ready=True)
    (verdict,) = await worker.judge([REQUEST])
    assert (verdict.scores, verdict.judge_id) == ((9.0,), "lm:mine")
    assert build.built == 1 and starts[0].cancelled()


async def test_a_worker_that_nobody_started_takes_no_questions() -> None:
    worker = JudgeWorker(LM, build=Builder())
    with pytest.raises(NotReady):
        await worker.judge([REQUEST])
    batch = Batch((Posted(7, 1, (REQUEST,)),))
    assert await worker.exchange("a", batch, 5.0) == Replies(Vitals())
    assert (await worker.stats()).calls == 0


async def test_questions_of_a_batch_are_answered_each_for_itself() -> None:
    build = Builder()
    build.go.set()
    worker = JudgeWorker(LM, build=build)
    await worker.start()
    replies = await worker.exchange("a", Batch((Posted(7, 1, (REQUEST,)), Posted(8, 2, (REQUEST, REQUEST)))), 5.0)
    assert {answer.id: len(answer.value) for answer in replies.answers} == {7: 1, 8: 2}
    assert set(replies.begun) == {7, 8} and replies.held == ()


class Engine(FakeGenerator):
    """A generator with an engine."""

    steps = 41

    def __init__(self) -> None:
        super().__init__(lambda ask: ["<score>9</score>"])
        self.looked = 0

    async def check_health(self) -> None:
        self.looked += 1


async def test_a_worker_with_an_engine_tells_its_steps_and_has_it_looked_at() -> None:
    engine = Engine()

    async def build() -> Engine:
        return engine

    worker = JudgeWorker(LM, build=build)
    await worker.start()
    assert await worker.health() == Vitals(ready=True, steps=41)
    assert engine.looked == 1


async def test_a_judge_that_could_not_be_built_is_built_at_the_next_start() -> None:
    build = Builder(failures=1)
    build.go.set()
    worker = JudgeWorker(LM, build=build)
    with pytest.raises(UserError, match="no such folder"):
        await worker.start()
    assert await worker.stats() == JudgeStats()
    await worker.start()
    await worker.start()
    (verdict,) = await worker.judge([REQUEST])
    assert verdict.scores == (9.0,) and build.built == 2


async def test_stats_show_unread_samples_and_the_generators_own_counts() -> None:
    class Counting(FakeGenerator):
        def usage(self) -> EngineUsage:
            return EngineUsage(tokens=12)

    async def build() -> FakeGenerator:
        return Counting(lambda ask: ["hm"])

    worker = JudgeWorker(LM, build=build)
    await worker.start()
    await worker.judge([REQUEST, REQUEST])
    assert await worker.stats() == JudgeStats(
        calls=1, verdicts=2, failed=2, unread={"no score": 2}, usage=EngineUsage(tokens=12)
    )


async def test_a_bug_of_ours_is_logged_by_type_and_place_without_the_texts() -> None:
    def answer(ask: Ask) -> list[str]:
        raise KeyError(ask.messages[0]["content"])

    async def build() -> FakeGenerator:
        return FakeGenerator(answer)

    worker = JudgeWorker(LM, build=build)
    await worker.start()
    with structlog.testing.capture_logs() as logs, pytest.raises(ExceptionGroup):
        await worker.judge([REQUEST])
    (entry,) = logs
    assert entry["event"] == "judging failed" and entry["trail"][0] == "ExceptionGroup"
    assert "KeyError" in entry["trail"] and any(x.endswith(" answer") for x in entry["trail"])
    assert "bike" not in str(entry)


async def test_a_wrong_rubric_folder_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match=r"judge\.rubrics: 'nowhere'"):
        await JudgeWorker(LM.model_copy(update={"rubrics": "nowhere"}), build=Builder()).start()


def test_judges_are_named_after_their_model() -> None:
    thinking = LM.model_copy(update={"template_arguments": {"enable_thinking": False, "a": "b"}})
    assert judge_id_of(thinking, "1a2b3c4d") == 'lm:qwen2.5-32b@1a2b3c4d(a="b",enable_thinking=false)', "another judge"
    assert judge_id_of(LM) == "lm:qwen2.5-32b" and judge_id_of(LM, "1a2b3c4d") == "lm:qwen2.5-32b@1a2b3c4d"
    assert judge_id_of(JudgeConfig.model_validate({"kind": "api", "api": {"model": "m-1"}})) == "api:m-1"
    assert [judge_id_of(JudgeConfig(kind=kind)) for kind in ("rules", "match", "none")] == [
        "rules-1",
        "match-1",
        "none",
    ]


async def test_each_call_is_metered(metered: RecordingMeter) -> None:
    worker = JudgeWorker(JudgeConfig(kind="none"))
    await worker.start()
    await worker.judge([REQUEST] * 3)
    assert metered.counters[("judge_verdicts_total",)] == 3 and len(metered.histograms[("judge_call_seconds",)]) == 1
