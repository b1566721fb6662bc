"""What the parts of a run are started with, without a Ray."""

import pickle
import random
from dataclasses import replace
from typing import Any

import pytest

from cluster.plan.placement import Placement
from cluster.run import wiring
from judge.rubric import load_rubrics
from tests.unit.cluster.plan.plans import parse_plan


class FakeRemote:
    """Stands for `ray.remote`: notes the options of every actor and task by name, starts nothing, answers any call."""

    def __init__(self) -> None:
        self.options: dict[str, dict[str, Any]] = {}

    def __call__(self, _target: Any) -> "FakeRemote._Named":
        return FakeRemote._Named(self)

    class _Named:
        def __init__(self, remote: "FakeRemote") -> None:
            self._remote = remote

        def options(self, **options: Any) -> "FakeRemote._Named":
            if "name" in options:
                self._remote.options[options["name"]] = options
            return self

        def remote(self, *_args: Any, **_kwargs: Any) -> "FakeRemote._Named":
            return self

        def __getattr__(self, _method: str) -> "FakeRemote._Named":
            return self


def test_every_part_starts_in_its_own_bundle_in_whatever_order_the_bundles_are(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = FakeRemote()
    monkeypatch.setattr(wiring.ray, "remote", remote)
    monkeypatch.setattr(wiring, "PlacementGroupSchedulingStrategy", lambda _group, index: index)
    plan = parse_plan(
        {"generation": {"workers": 2, "cpus_per_worker": 0.3}, "judge": {"workers": 3, "cpus_per_worker": 0.7}}
    )
    shuffled = list(plan.placement.bundles)
    random.Random(2).shuffle(shuffled)
    plan = replace(plan, placement=Placement(tuple(shuffled)))
    wiring.build(plan, None)  # type: ignore[arg-type]
    assert {name.removeprefix("a/") for name in remote.options} == {bundle.role for bundle in shuffled}
    for name, options in remote.options.items():
        bundle = shuffled[options["scheduling_strategy"]]
        assert name == f"a/{bundle.role}"
        assert (options["num_cpus"], options["num_gpus"]) == (bundle.cpus, bundle.gpus)
        # Ray restarts and asks again; but not the publisher, which would be empty, and judges are asked again by their pool.
        restarts, retries = {"publisher": (0, 0), "judge": (-1, 0)}.get(bundle.role.rstrip("-0123456789"), (-1, -1))
        assert (options["max_restarts"], options["max_task_retries"]) == (restarts, retries), name


def test_a_pools_memory_is_its_judges_and_its_rubrics() -> None:
    assert wiring.judge_pool([None], parse_plan({"judge": {"kind": "rules"}}).judge)._key == "rules-1"
    rubrics = tuple(load_rubrics("standard").names)
    lm = wiring.judge_pool([None], parse_plan({"judge": {"kind": "lm", "model": "models/J"}}, rubrics=rubrics).judge)
    assert lm._key.startswith("lm:J standard/compliance.pairwise@") and len(lm._key.split()) == 9
    assert pickle.loads(pickle.dumps(lm))._key == lm._key  # it travels to the rollout worker
