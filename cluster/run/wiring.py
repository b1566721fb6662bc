"""Puts the parts of one run on the nodes that were reserved for it: the actors, and a task for each learner group.

The only module that knows every part's constructor. It decides nothing about the game and holds no state of the run.
"""

import functools
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from actors.generation import GenerationWorker
from actors.rollout import DEAL_WAIT_S
from cluster.calls import NamedActor
from cluster.observe.process import Observing, observe_rank, observed
from cluster.plan.placement import PUBLISHER, REPLAY, generation_role, judge_role, rollout_role
from cluster.plan.plan import Plan
from cluster.publish.actor import WeightPublisher, start_holder
from cluster.publish.client import PublisherSink, VersionClient
from cluster.publish.holder import Holder
from cluster.publish.native import NativeSink
from cluster.replay.actor import ReplayBuffer
from cluster.replay.client import BatchClient, ReplayClient
from cluster.run.descriptions import describe_parts
from cluster.run.judge_engine import engine_builder
from cluster.run.pools import Pools, RolloutWorker
from cluster.run.reserve import Reservation, take_nodes
from cluster.sandbox.rule_judge import RuleJudge
from judge.worker import JudgeWorker
from learners.fit import fit_group
from protocol.roles import PLAYERS, Player

MANY = 2000  # concurrent calls of an async actor: every game in flight may hold one


@dataclass
class Parts:
    """Handles of everything that runs."""

    reserved: Reservation
    replay: Any
    publisher: Any
    judges: list[Any]
    generators: dict[Player, list[Any]]
    rollouts: list[Any]
    learners: dict[Player, Any]  # object refs of the learner tasks, of the players that learn
    registered: list[Any]  # object refs: the publisher knows the workers; it starts them

    def register(self, player: Player, newest: int = 0) -> Any:
        """Tells the publisher a player's workers, and the newest version that it had before it was restarted; an object ref."""
        return self.publisher.register.remote(player, self.generators[player], newest)

    def handle(self, role: str) -> Any:
        """The actor of a generation or judge worker's role."""
        return self.workers[role]

    @property
    def judges_by_role(self) -> dict[str, Any]:
        """The judge workers."""
        return {judge_role(k): handle for k, handle in enumerate(self.judges)}

    def generators_by_role(self, player: Player) -> dict[str, Any]:
        """A player's generation workers."""
        return {generation_role(player, k): handle for k, handle in enumerate(self.generators[player])}

    @property
    def actors(self) -> dict[str, Any]:
        """Every actor by role."""
        rollouts = {rollout_role(k): handle for k, handle in enumerate(self.rollouts)}
        return {REPLAY: self.replay, PUBLISHER: self.publisher} | rollouts | self.workers

    @property
    def workers(self) -> dict[str, Any]:
        """Generation and judge workers by role."""
        attackers, defenders = (self.generators_by_role(p) for p in PLAYERS)
        return self.judges_by_role | attackers | defenders


def observing(plan: Plan) -> Observing:
    """How the run's processes are observed."""
    return Observing(plan.name, plan.run_dir, plan.logs, plan.metrics)


class _Builder:
    """Starts actors, each in its role's bundle of the placement group and under its role's name."""

    def __init__(self, plan: Plan, group: PlacementGroup) -> None:
        self._plan, self._group, self._serves = plan, group, describe_parts(plan)

    def handle(self, role: str) -> NamedActor:
        """The actor of that role, by name: what parts hold of each other."""
        return NamedActor(f"{self._plan.name}/{role}")

    def start(
        self, cls: type, role: str, *args: Any, restarts: int = -1, retries: int = -1, events: bool = True
    ) -> Any:
        """Starts the actor of a role; returns at once.

        Args:
            retries: of Ray's, of each call. 0 where a call must not queue behind a restart.
            events: whether Ray notes each call for its dashboard, which costs the caller of a hot actor.
        """
        index = self._plan.placement.index_of(role)
        bundle = self._plan.placement.bundles[index]
        options: dict[str, Any] = {
            "name": f"{self._plan.name}/{role}",
            "num_cpus": bundle.cpus,
            "num_gpus": bundle.gpus,
            "max_concurrency": MANY,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, index),
            "max_restarts": restarts,
            "max_task_retries": retries,
            "enable_task_events": events,
        }
        part = observed(cls, observing(self._plan), role, self._serves[role])
        return ray.remote(part).options(**options).remote(*args)


def build(plan: Plan, reserved: Reservation) -> Parts:
    """Starts every actor and the learner groups; returns at once, they come up side by side."""
    b = _Builder(plan, reserved.parts)
    replay = b.start(ReplayBuffer, REPLAY, str(plan.run_dir.path), plan.replay, plan.inputs.train, events=False)
    publisher = _start_publisher(b, plan)
    generators = {player: _start_engines(b, plan, player) for player in PLAYERS}
    registered = [publisher.register.remote(player, generators[player]) for player in PLAYERS]
    judges = _start_judges(b, plan)
    rollouts = [_start_rollout(b, plan, k) for k in range(len(plan.shares))]
    source = BatchClient(replay, plan.stall_s)
    learners = {player: _start_learner(plan, player, source, publisher, reserved) for player in plan.learners}
    return Parts(reserved, replay, publisher, judges, generators, rollouts, learners, registered)


def _start_rollout(b: _Builder, plan: Plan, k: int) -> Any:
    role = rollout_role(k)
    # A replay buffer that is away is waited for as long as nothing may move; then the watchdog says so.
    source = ReplayClient(b.handle(REPLAY), plan.stall_s)
    pools, source_s = Pools(plan, role, b.handle, (k, len(plan.shares))), plan.stall_s + DEAL_WAIT_S
    return b.start(RolloutWorker, role, role, plan.rules, plan.shares[k], source, pools, source_s, events=False)


def _start_publisher(b: _Builder, plan: Plan) -> Any:
    native = {player: transport for player, transport in plan.transports.items() if transport != "host"}
    return b.start(
        WeightPublisher,
        PUBLISHER,
        plan.push,
        plan.generation.start_deadline_s,
        plan.push_periods,
        native,
        functools.partial(_start_holder, observing(plan)),
        retries=0,  # callers ask again, those who may
    )


def _start_holder(how: Observing, node: str) -> Any:
    """A holder's actor on that node, observed. Its owner is the publisher, and it ends with it."""
    return start_holder(node, observed(Holder, how, f"holder-{node[:8]}", "keeps versions for the workers of its node"))


def _start_engines(b: _Builder, plan: Plan, player: Player) -> list[Any]:
    model, g, arguments = plan.inputs.models[player], plan.generation, plan.template_arguments[player]

    def start(k: int) -> Any:
        versions = VersionClient(b.handle(PUBLISHER), f"{player}-{k}")
        # No retries of Ray's here and for judges: what was asked goes to another worker instead of waiting for this one.
        role = generation_role(player, k)
        return b.start(GenerationWorker, role, player, model, g, versions, arguments, retries=0, events=False)

    return [start(k) for k in range(g.workers)]


def _start_judges(b: _Builder, plan: Plan) -> list[Any]:
    judge, model = plan.judge, plan.inputs.judge_model
    engine = None if model is None else engine_builder(judge.config, model)
    ledger: str | None = None
    if judge.config.kind == "api":
        plan.run_dir.ledger.parent.mkdir(exist_ok=True)
        ledger = str(plan.run_dir.ledger)

    def start(k: int) -> Any:
        role, config = judge_role(k), judge.config
        return b.start(JudgeWorker, role, config, judge.judge_id, engine, ledger, RuleJudge, retries=0, events=False)

    return [start(k) for k in range(judge.config.workers)]


def _start_learner(plan: Plan, player: Player, source: BatchClient, publisher: Any, reserved: Reservation) -> Any:
    """The task that runs one learner group to its end.

    It is on the driver's node: lost with another one, it would take a group along whose ranks live. Where its process dies, Ray
    starts it again, and the group goes on from its checkpoint.
    """
    transport = plan.transports[player]
    if transport == "host":
        sink = PublisherSink(publisher)
    else:
        sink = NativeSink(publisher, transport, plan.push, plan.generation.tensor_parallel)
    on_rank = functools.partial(observe_rank, observing(plan), player)
    spec, take = plan.learners[player], functools.partial(take_nodes, reserved.learners[player])
    near = NodeAffinitySchedulingStrategy(reserved.home, soft=True)
    options = {"num_cpus": 0, "max_retries": spec.config.restarts, "scheduling_strategy": near}
    return ray.remote(fit_group).options(**options).remote(spec, source, sink, on_rank, take)


def take_down(parts: Parts) -> None:
    """Ends what `build` started. Needed on a cluster that goes on without us; a local Ray ends as a whole."""
    for ref in parts.learners.values():
        ray.cancel(ref, force=True, recursive=True)
    for handle in [*parts.rollouts, *parts.workers.values(), parts.publisher, parts.replay]:
        ray.kill(handle)
    parts.reserved.give_back()
