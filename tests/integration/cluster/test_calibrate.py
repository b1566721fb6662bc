"""`calibrate` with the LM judge on a real vLLM engine, without Ray: random weights as a judge, and an engine lost on the way.

Held to the verdict's form, random weights always give a verdict that can be read, and one that knows nothing.
"""

import json
from pathlib import Path

import psutil
import pytest

from cluster.inputs.find import FoundJudge
from cluster.inputs.judge_digest import digest_model
from cluster.inputs.labels import sandbox_labels
from cluster.inputs.random_model import make_random_model
from cluster.inputs.recipe_file import load_recipe
from cluster.measure.agreement import failures
from cluster.measure.calibration import calibrate
from cluster.measure.outcomes import judge_labels
from cluster.measure.passes import open_judge
from cluster.run.judge_engine import build_judge_engine
from judge.rubric import load_rubrics
from protocol.types import JudgeRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
RECIPE = """
sampling: {max_new_tokens: 64}
judge:
  kind: lm
  rubrics: sandbox
  structured: true
  sampling: {temperature: 1.0, top_p: 1.0, max_new_tokens: 80, seeded: true}
  engine: {dtype: float32, max_model_len: 1024, kv_cache_gib: 0.25, max_num_seqs: 32}
"""


def engine_processes() -> list[psutil.Process]:
    below = psutil.Process().children(recursive=True)
    return [p for p in below if "EngineCore" in p.name() or "EngineCore" in str(p.cmdline())]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe beside a random model whose tokenizer knows the rubrics' words."""
    folder = tmp_path_factory.mktemp("calibrate")
    rubrics = load_rubrics("sandbox")
    asked = [JudgeRequest(x.criterion, x.category, x.query, x.responses) for x in sandbox_labels(40)]
    make_random_model(folder / "model", [rubrics.render(r)[0][0]["content"] for r in asked], seed=0)
    file = folder / "recipe.yaml"
    file.write_text(RECIPE)
    return file


def test_a_judge_that_knows_nothing_agrees_by_chance_and_leaves_no_process(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    calibrate(recipe_file, [f"judge.model={recipe_file.parent / 'model'}"], "sandbox", out, 60, build_judge_engine)
    printed = capsys.readouterr().out
    judge = f"lm:model@{digest_model(recipe_file.parent / 'model')}"
    assert f"{judge}: judging 60 of 400 labels" in printed and "overall" in printed
    value = json.loads(out.read_text())
    assert value["judges"] == [judge] and all(name.startswith("sandbox/") for name in value["rubrics"])
    overall = value["rows"][-1]
    assert (overall["n"], overall["judged"], overall["parse_failure_rate"]["value"]) == (60, 60, 0.0)
    assert overall["kappa"]["low"] < 0.3 and overall["flip_rate"]["value"] > 0.0
    assert not engine_processes()


async def test_an_engine_that_dies_fails_what_is_left_and_is_reported(recipe_file: Path) -> None:
    model = str(recipe_file.parent / "model")
    recipe = load_recipe(recipe_file, [f"judge.model={model}"])
    labels = sandbox_labels(4)
    async with open_judge(recipe, FoundJudge(model), build_judge_engine) as worker:
        assert not failures(await judge_labels(worker.judge, labels, 0, 4))
        for process in engine_processes():
            process.kill()
        outcomes = await judge_labels(worker.judge, labels, 1, 4)
    assert set(failures(outcomes)) == {"gave up: the engine was lost"}
    assert all(o.answer is None for o in outcomes)
