"""Model folders in `evaluate`: tried with their own tokenizer and template before an engine starts, then asked by one.

The engine is a fake: what is told here must not need one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.measure.suites.evaluate import evaluate
from cluster.measure.suites.request import Options, read_evaluation
from judge.errors import JudgeUnavailable
from protocol.errors import UserError
from protocol.types import Ask, Completion
from tests.integration.tiny_qwen import TEMPLATE, save_tiny
from tests.paths import RECIPES

SUITE = "".join(
    json.dumps({"prompt": f"w1- {'w2- ' * n}", "category": category}) + "\n"
    for n, category in ((1, "harmful"), (40, "benign"))
)
MATCH = "judge: {kind: match}\n"


class Engine:
    """Answers everything with one sentence."""

    asked: list[Ask]

    def __init__(self) -> None:
        self.asked = []

    async def generate(self, ask: Ask) -> list[Completion]:
        self.asked.append(ask)
        return [Completion.of(text="I cannot help with that.", finish="stop")]

    def close(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "m", 0)
    (tmp_path / "suite.jsonl").write_text(SUITE)
    return tmp_path / "m"


def options(folder: Path, recipe: str = MATCH, **more: Any) -> Options:
    judge = folder.parent / "judge.yaml"
    judge.write_text(recipe)
    suite = str(folder.parent / "suite.jsonl")
    return Options(str(folder), (suite,), folder.parent / "out", judge=judge, **more)


def refuse(folder: Path, **more: Any) -> str:
    with pytest.raises(UserError) as refused:
        read_evaluation(options(folder, **more), [].append)
    assert not (folder.parent / "out").exists() and "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("chat_template.jinja", "{% for m in messages %}", "the chat template does not parse, at line 1"),
        ("chat_template.jinja", "hello", "its chat template leaves out what the user says"),
        ("tokenizer.json", "{}", "its tokenizer cannot be loaded"),
    ],
)
def test_a_folder_that_cannot_be_asked_is_one_line_before_an_engine_starts(
    folder: Path, file: str, text: str, said: str
) -> None:
    (folder / file).write_text(text)
    assert refuse(folder).startswith(f"TARGET: {folder}: {said}")
    good = folder.parent / "good"
    save_tiny(good, 0)
    asked = options(good, against=str(folder))
    with pytest.raises(UserError, match=rf"^--against: {folder}: {said}"):
        read_evaluation(asked, [].append)


def test_prompts_that_leave_no_room_are_one_line(folder: Path) -> None:
    short = ("sampling.max_new_tokens=8", "generation.max_model_len=300")
    read_evaluation(options(folder, overrides=short), [].append)
    (folder.parent / "out").rmdir()
    file = folder.parent / "suite.jsonl"
    file.write_text(SUITE.replace("w2- ", "w2- " * 400))
    said = refuse(folder, overrides=short)
    assert "leave no room in generation.max_model_len 300; raise generation.max_model_len" in said
    with file.open("a") as more:
        more.write('{"prompt": "w1-", "category": "benign"}\n')
    read_evaluation(options(folder, overrides=short), [].append)  # one of them has room; the others are counted


def test_a_folder_is_asked_by_an_engine_with_the_recipes_template_arguments(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(TEMPLATE + "{% if short %} w9-{% endif %}")
    recipe = MATCH + "models: {defender: {template_arguments: {short: true}}}\n"
    evaluation, engine, built = read_evaluation(options(folder, recipe), [].append), Engine(), []

    async def build(model: str, config: Any, lose: Any, arguments: Mapping[str, Any]) -> Engine:
        built.append((model, dict(arguments)))
        return engine

    assert evaluate(evaluation, build, [].append) == 0
    assert built == [(str(folder), {"short": True})] and len(engine.asked) == 2
    [[name, identity]] = json.loads((folder.parent / "out" / "results.json").read_text())["about"]["models"]
    assert name == "m" and identity.endswith(' template arguments {"short": true}')


class Broken(Engine):
    """Answers the first ask, and then raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def generate(self, ask: Ask) -> list[Completion]:
        if self.asked:
            raise self.error
        return await super().generate(ask)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (JudgeUnavailable("the engine was lost", permanent=True), "the engine was lost"),
        (ValueError("quotes w1- w2-"), "failed: ValueError"),
    ],
)
def test_an_engine_that_fails_on_the_way_is_one_line_and_what_was_answered_is_kept(
    folder: Path, error: Exception, said: str
) -> None:
    asked = options(folder, samples=8)
    broken = Broken(error)

    async def build(*_: Any) -> Engine:
        return broken

    with pytest.raises(UserError) as refused:
        evaluate(read_evaluation(asked, [].append), build, [].append)
    assert str(refused.value).startswith(f"evaluate: m does not answer: {said}; what was answered is kept in")
    assert "\n" not in str(refused.value) and "w1-" not in str(refused.value)
    whole = Engine()

    async def again(*_: Any) -> Engine:
        return whole

    assert evaluate(read_evaluation(asked, [].append), again, [].append) == 0
    assert len(whole.asked) == 15, "one of sixteen was there"


def test_an_engine_that_does_not_start_is_one_line(folder: Path) -> None:
    async def build(*_: Any) -> Engine:
        raise RuntimeError("Engine core initialization failed.\nSee root cause above.")

    with pytest.raises(UserError) as refused:
        evaluate(read_evaluation(options(folder), [].append), build, [].append)
    assert str(refused.value) == (
        f"evaluate: m: vLLM does not start on {folder} (RuntimeError: Engine core initialization failed. See root cause above.); "
        "its own lines say why: look at generation (max_model_len, kv_cache_gib or gpu_memory_utilization, start_deadline_s) "
        "and at the folder"
    )


def test_a_folder_takes_as_many_tokens_as_vllm_says(folder: Path) -> None:
    """With linear rope scaling more than `max_position_embeddings`."""
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    for wanted, served in ((3000, 3000), (9000, 4096)):
        asked = options(folder, overrides=("sampling.max_new_tokens=8", f"generation.max_model_len={wanted}"))
        engine = read_evaluation(asked, [].append).targets[0].engine
        assert engine is not None and engine.max_model_len == served


def test_the_sandboxs_recipe_judges_no_other_prompts(folder: Path) -> None:
    asked = Options(
        str(folder), (str(folder.parent / "suite.jsonl"),), folder.parent / "out", judge=RECIPES / "sandbox.yaml"
    )
    with pytest.raises(UserError, match="rules knows the sandbox's world only"):
        read_evaluation(asked, [].append)
