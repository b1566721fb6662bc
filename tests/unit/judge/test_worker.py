"""The judge worker and the generator that `cluster` hands it: built once, whoever asks first, and honest when lost."""

import asyncio
import pickle
from typing import Any, NoReturn

import pytest
import structlog

from actors.errors import PromptTooLong, WorkerBroken
from cluster.inputs.judge_context import check_judge_context
from cluster.run.judge_engine import JudgeEngine, engine_builder
from judge.errors import JudgeUnavailable
from judge.identity import judge_id_of
from judge.rubric import load_rubrics
from judge.stats import EngineUsage, JudgeStats
from judge.worker import JudgeWorker
from protocol.errors import UserError
from protocol.recipe import JudgeConfig, Recipe, parse_recipe
from protocol.types import Ask, Completion, JudgeRequest, Sampling, Seed
from tests.unit.fakes import FakeGenerator, completion

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


async def test_calls_that_come_while_the_judge_is_built_share_it() -> None:
    build = Builder()
    worker = JudgeWorker(LM, "lm:mine", build)
    calls = [asyncio.create_task(worker.judge([REQUEST])) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()  # its deadline passed; the engine is built all the same
    build.go.set()
    (verdict,), _ = await asyncio.gather(*calls[1:])
    assert (verdict.scores, verdict.judge_id) == ((9.0,), "lm:mine")
    assert build.built == 1 and calls[0].cancelled()
    assert (await worker.stats()).calls == 2


async def test_a_judge_that_could_not_be_built_is_built_at_the_next_call() -> None:
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
    await worker.judge([REQUEST, REQUEST])
    assert await worker.stats() == JudgeStats(
        calls=1, verdicts=2, failed=2, unread={"no score": 2}, usage=EngineUsage(tokens=12)
    )


async def test_a_bug_of_ours_is_logged_by_type_and_place_without_the_texts() -> None:
    def answer(ask: Ask) -> list[str]:
        raise KeyError(ask.messages[0]["content"])

    async def build() -> FakeGenerator:
        return FakeGenerator(answer)

    with structlog.testing.capture_logs() as logs, pytest.raises(ExceptionGroup):
        await JudgeWorker(LM, build=build).judge([REQUEST])
    (entry,) = logs
    assert entry["event"] == "judging failed" and entry["trail"][0] == "ExceptionGroup"
    assert "KeyError" in entry["trail"] and any(x.endswith(" answer") for x in entry["trail"])
    assert "bike" not in str(entry)


async def test_a_wrong_rubric_folder_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match=r"judge\.rubrics: 'nowhere'"):
        await JudgeWorker(LM.model_copy(update={"rubrics": "nowhere"}), build=Builder()).start()


def test_judges_are_named_after_their_model() -> None:
    assert judge_id_of(LM) == "lm:qwen2.5-32b"
    assert judge_id_of(JudgeConfig.model_validate({"kind": "api", "api": {"model": "m-1"}})) == "api:m-1"
    assert [judge_id_of(JudgeConfig(kind=kind)) for kind in ("rules", "none")] == ["rules-1", "none"]


class FakeEngine:
    """What `JudgeEngine` sees of an engine: it answers, or raises what it is given."""

    prompt_tokens, cached_tokens = 100, 60

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def generate(self, ask: Ask) -> list[Completion]:
        if self.error is not None:
            raise self.error
        return [completion("one two three") for _ in ask.seeds]


def engine(error: Exception | None = None, **options: Any) -> JudgeEngine:
    return JudgeEngine(FakeEngine(error), **{"on_broken": pytest.fail, **options})  # type: ignore[arg-type]


async def test_an_engine_that_judges_counts_its_tokens() -> None:
    judging = engine()
    assert [c.text for c in await judging.generate(ASK)] == ["one two three"]
    assert judging.usage() == EngineUsage(completions=1, tokens=3, prompt_tokens=100, cached_tokens=60)


async def test_a_question_without_room_is_given_up() -> None:
    with pytest.raises(JudgeUnavailable, match="prompt too long") as caught:
        await engine(PromptTooLong("5000 tokens")).generate(ASK)
    assert caught.value.permanent
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, again.permanent) == ("prompt too long", True)


async def test_a_broken_engine_takes_its_process_along() -> None:
    class Left(BaseException):
        pass

    def leave() -> NoReturn:
        raise Left

    with pytest.raises(Left):
        await engine(WorkerBroken("died"), on_broken=leave).generate(ASK)


def test_the_builder_travels_to_another_process() -> None:
    again = pickle.loads(pickle.dumps(engine_builder(Recipe().judge, "/models/judge")))
    assert again.args == ("/models/judge", Recipe().judge.engine)


def test_an_api_whose_context_is_known_is_checked_against_it() -> None:
    def recipe(context: int | None) -> Recipe:
        api = {"base_url": "http://localhost/v1", "model": "m", "context": context}
        return parse_recipe({"judge": {"kind": "api", "workers": 1, "api": api}})

    rubrics = load_rubrics("standard")
    check_judge_context(recipe(None), None, rubrics)
    check_judge_context(recipe(32_768), None, rubrics)
    with pytest.raises(UserError, match=r"judge\.api\.context: rubric \d+ \+ query 2048 .* the judge takes 8192"):
        check_judge_context(recipe(8192), None, rubrics)
    plain, long = Seed("a", "fix a bike", "benign"), Seed("b", "fix " * 20_000, "benign")
    check_judge_context(recipe(32_768), None, rubrics, [plain])
    with pytest.raises(UserError, match=r"query 266\d\d \+ 2 responses of 2048 .* or leave out the longest seeds"):
        check_judge_context(recipe(32_768), None, rubrics, [plain, long])
