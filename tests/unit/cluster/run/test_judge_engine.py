"""The engine of a judge: what it counts, what it gives up, and that a broken one takes its process along."""

import pickle
from typing import Any, NoReturn

import pytest

from actors.errors import PromptTooLong, WorkerBroken
from cluster.run.judge_engine import JudgeEngine, engine_builder
from judge.errors import JudgeUnavailable
from judge.stats import EngineUsage
from protocol.recipe import JudgeConfig
from protocol.types import Ask, Completion, Sampling
from tests.unit.fakes import completion

ASK = Ask("a", ({"role": "user", "content": "hello"},), (1,), Sampling(1.0, 1.0, 8))


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
    config = JudgeConfig(template_arguments={"enable_thinking": False})
    again = pickle.loads(pickle.dumps(engine_builder(config, "/models/judge")))
    assert again.args == ("/models/judge", JudgeConfig().engine)
    assert again.keywords == {"template_arguments": {"enable_thinking": False}}
