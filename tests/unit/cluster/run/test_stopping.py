"""A run that ends early: who is waited for, for how long, and what is said of it."""

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.run import stopping
from cluster.run.session import hurry
from cluster.run.stopping import Saved, save_learners
from cluster.run.train import JOB_CONFIG, warn_of_stop
from learners.spec import LearnerResult
from tests.paths import ROOT

STEPS = {"attacker": 5, "defender": 7}


class Learners:
    """Two learner groups that end some looks after the replay buffer was told; a number of looks below 0 ends by an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: dict[str, int], replay_lives: bool = True) -> None:
        self.looks, self.told, self.said = looks, 0, list[str]()
        self.replay_lives = replay_lives
        monkeypatch.setattr(ray, "wait", self.wait)
        monkeypatch.setattr(ray, "get", self.get)
        monkeypatch.setattr(stopping, "LOOK_S", 0.001)

    def wait(self, refs: list[str], timeout: float) -> tuple[list[str], list[str]]:
        if self.told:
            self.looks[refs[0]] -= 1 if self.looks[refs[0]] > 0 else 0
        return (refs, []) if self.looks[refs[0]] <= 0 else ([], refs)

    def get(self, ref: str) -> LearnerResult:
        if self.looks[ref] < 0:
            raise ray.exceptions.RayError("gone")
        return LearnerResult(ref, STEPS[ref], 9, Path("x"), 0, stopped=True)  # type: ignore[arg-type]

    async def tell(self) -> None:
        if not self.replay_lives:
            raise ray.exceptions.RayActorError
        self.told += 1

    async def save(self, steps: dict[str, int], grace_s: float = 5.0) -> Saved | None:
        replay = SimpleNamespace(stop_learners=SimpleNamespace(remote=self.tell))
        parts: Any = SimpleNamespace(learners={player: player for player in self.looks}, replay=replay)
        progress: Any = SimpleNamespace(say=self.said.append, wait=lambda *_: nullcontext(lambda note: None))
        async with asyncio.timeout(4.0):
            return await save_learners(parts, steps, grace_s, progress)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nobody_hurries() -> Iterator[None]:
    hurry.clear()
    yield
    hurry.clear()


async def test_both_learners_are_waited_for_and_their_steps_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    learners = Learners(monkeypatch, {"attacker": 2, "defender": 9})
    saved = await learners.save(STEPS)
    assert saved is not None and saved.steps == STEPS and saved.lost == ()
    assert learners.said == ["checkpoint of the attacker at step 5; checkpoint of the defender at step 7 (0 s)"]
    assert learners.told > 1, "a replay buffer that restarts is told again"


async def test_a_learner_that_took_no_step_or_is_done_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    learners = Learners(monkeypatch, {"attacker": 0, "defender": 1000})
    assert await learners.save({"attacker": 5, "defender": 0}) is None
    assert await learners.save(STEPS, grace_s=0.0) is None
    assert (learners.told, learners.said) == (0, [])


@pytest.mark.parametrize("why", ["grace", "hurry", "replay"])
async def test_what_cannot_be_saved_is_said(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learners = Learners(monkeypatch, {"attacker": 1_000_000, "defender": 1_000_000}, replay_lives=why != "replay")
    if why == "hurry":
        asyncio.get_running_loop().call_later(0.05, hurry.set)
    saved = await learners.save(STEPS, grace_s=0.1 if why == "grace" else 60.0)
    assert saved is not None and saved.lost == ("attacker", "defender") and not saved.steps
    none = "none of the {}: its steps since its last one are lost"
    assert learners.said == [f"{none.format('attacker')}; {none.format('defender')} (0 s)"]


def test_a_job_that_would_be_killed_before_its_checkpoints_is_told_so() -> None:
    told = warn_of_stop(240.0, {JOB_CONFIG: "{}"})
    assert told is not None and "after 3 s" in told and "deploy/runtime-env.yaml" in told
    assert warn_of_stop(240.0, {}) is None, "no job"
    assert warn_of_stop(0.0, {JOB_CONFIG: "{}"}) is None


def test_the_shipped_runtime_environment_leaves_time_for_the_recipes_grace() -> None:
    import yaml

    from protocol.recipe import parse_recipe

    shipped = yaml.safe_load((ROOT / "deploy" / "runtime-env.yaml").read_text())["env_vars"]
    assert int(shipped["RAY_JOB_STOP_WAIT_TIME_S"]) >= parse_recipe({}).run.grace_s + 30
    assert warn_of_stop(parse_recipe({}).run.grace_s, {JOB_CONFIG: "{}", **shipped}) is None
    assert "--runtime-env deploy/runtime-env.yaml" in (ROOT / "README.md").read_text()
