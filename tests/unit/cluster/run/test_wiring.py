"""What the parts of a run are started with, without a Ray."""

import pickle
import random
from dataclasses import replace
from typing import Any

import pytest

from cluster.plan.placement import Placement, generation_role
from cluster.plan.places import Places
from cluster.run import wiring
from cluster.run.pools import Pools, judge_pool
from cluster.run.reserve import Reservation
from judge.rubric import load_rubrics
from protocol.errors import UserError
from protocol.roles import PLAYERS, Player
from tests.unit.cluster.plan.plans import parse_plan


class FakeRemote:
    """Stands for `ray.remote`: notes the options of every actor and task by name, starts nothing, answers any call."""

    def __init__(self) -> None:
        self.options: dict[str, dict[str, Any]] = {}
        self.given: dict[str, tuple[Any, ...]] = {}
        self.tasks: list[dict[str, Any]] = []

    def __call__(self, _target: Any) -> "FakeRemote._Named":
        return FakeRemote._Named(self)

    class _Named:
        def __init__(self, remote: "FakeRemote", name: str = "") -> None:
            self._remote, self._name = remote, name

        def options(self, **options: Any) -> "FakeRemote._Named":
            if "name" in options:
                self._remote.options[options["name"]] = options
                return FakeRemote._Named(self._remote, options["name"])
            self._remote.tasks.append(options)
            return self

        def remote(self, *args: Any, **_kwargs: Any) -> "FakeRemote._Named":
            if self._name:
                self._remote.given[self._name] = args
            return self

        def __getattr__(self, _method: str) -> "FakeRemote._Named":
            return self


def test_every_part_starts_in_its_own_bundle_in_whatever_order_the_bundles_are(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = FakeRemote()
    monkeypatch.setattr(wiring.ray, "remote", remote)
    monkeypatch.setattr(wiring, "PlacementGroupSchedulingStrategy", lambda _group, index: index)
    plan = parse_plan(
        {
            "generation": {"workers": 2, "cpus_per_worker": 0.3},
            "judge": {"workers": 3, "cpus_per_worker": 0.7},
            "rollout": {"workers": 2},
        }
    )
    shuffled = list(plan.placement.bundles)
    random.Random(2).shuffle(shuffled)
    plan = replace(plan, placement=Placement(tuple(shuffled), plan.placement.learners))
    wiring.build(plan, reserved())
    assert {name.removeprefix("a/") for name in remote.options} == {bundle.role for bundle in shuffled}
    for name, options in remote.options.items():
        bundle = shuffled[options["scheduling_strategy"]]
        assert name == f"a/{bundle.role}"
        assert (options["num_cpus"], options["num_gpus"]) == (bundle.cpus, bundle.gpus)
        # Ray restarts and asks again; but not the publisher, which would be empty. Who is asked by a pool is asked again by it.
        kind = bundle.role.split("-")[0]
        restarts, retries = {"publisher": (-1, 0), "judge": (-1, 0), "generation": (-1, 0)}.get(kind, (-1, -1))
        assert (options["max_restarts"], options["max_task_retries"]) == (restarts, retries), name


def reserved() -> Reservation:
    """Room that nobody asked for."""
    groups: dict[Player, Any] = dict.fromkeys(PLAYERS, "a placeholder")
    nobody: Any = None
    return Reservation(nobody, groups, Places(), "5e" * 28)


def test_a_learner_groups_task_is_on_the_drivers_node_and_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """R34: on another node it would be lost with it, and with it a group whose ranks may all live."""
    remote = FakeRemote()
    monkeypatch.setattr(wiring.ray, "remote", remote)
    monkeypatch.setattr(wiring, "PlacementGroupSchedulingStrategy", lambda _group, index: index)
    wiring.build(parse_plan({"learners": {"attacker": {"restarts": 2}, "defender": {"restarts": 5}}}), reserved())
    assert [task["max_retries"] for task in remote.tasks] == [2, 5]
    for task in remote.tasks:
        where = task["scheduling_strategy"]
        assert (where.node_id, where.soft) == ("5e" * 28, True)


def test_each_players_engines_get_its_own_template_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = FakeRemote()
    monkeypatch.setattr(wiring.ray, "remote", remote)
    monkeypatch.setattr(wiring, "PlacementGroupSchedulingStrategy", lambda _group, index: index)
    given: dict[str, dict[str, Any]] = {"attacker": {"enable_thinking": False}, "defender": {"short": True}}
    plan = parse_plan({"models": {player: {"template_arguments": own} for player, own in given.items()}})
    wiring.build(plan, reserved())
    for player, own in given.items():
        assert own in remote.given[f"a/{generation_role(player, 0)}"], player  # type: ignore[arg-type]


def test_an_outage_of_the_replay_buffer_is_waited_for_as_long_as_nothing_may_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patience: list[tuple[str, float]] = []

    def note(name: str) -> Any:
        return lambda _handle, restart_s=120.0: patience.append((name, restart_s))

    monkeypatch.setattr(wiring.ray, "remote", remote := FakeRemote())
    monkeypatch.setattr(wiring, "PlacementGroupSchedulingStrategy", lambda _group, index: index)
    for client in ("ReplayClient", "BatchClient"):
        monkeypatch.setattr(wiring, client, note(client))
    wiring.build(parse_plan({"run": {"stall_s": 777.0}}), reserved())
    assert remote.options and dict(patience) == {"ReplayClient": 777.0, "BatchClient": 777.0}


def test_rollout_workers_share_the_games() -> None:
    plan = parse_plan({"rollout": {"workers": 3}, "game": {"in_flight": 64}})
    assert plan.shares == (22, 21, 21)
    roles = [bundle.role for bundle in plan.placement.bundles if bundle.role.startswith("rollout")]
    assert roles == ["rollout-0", "rollout-1", "rollout-2"]


def test_more_rollout_workers_than_games_are_refused() -> None:
    with pytest.raises(UserError, match=r"rollout\.workers: 3 share the game\.in_flight 2 games"):
        parse_plan({"rollout": {"workers": 3}, "game": {"in_flight": 2}})


def test_a_pools_memory_is_its_judges_and_its_rubrics() -> None:
    nobody: Any = None
    assert judge_pool(nobody, parse_plan({"judge": {"kind": "rules"}}).judge)._key == "rules-1"
    rubrics = tuple(load_rubrics("standard").names)
    lm = judge_pool(nobody, parse_plan({"judge": {"kind": "lm", "model": "models/J"}}, rubrics=rubrics).judge)
    assert lm._key.startswith("lm:J@1a2b3c4d standard/compliance.pairwise@") and len(lm._key.split()) == 1 + len(
        rubrics
    )


def test_a_processes_pools_travel_to_it_and_know_nothing_before_they_are_used() -> None:
    plan = parse_plan({"generation": {"workers": 2}, "judge": {"kind": "rules", "workers": 3}})
    pools = Pools(plan, "rollout-0", str)
    again = pickle.loads(pickle.dumps(pools))
    assert again.judge._key == pools.judge._key and again.missed() == {}
