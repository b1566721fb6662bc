"""Room on the cluster for all of a run, or for nothing of it: its placement groups, and the nodes that they are on.

When to wait, to give back and to give up is decided in `plan.reserving`; this module asks Ray. It starts no part.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import structlog
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from cluster.plan.placement import Bundle, NodeSize, choose_strategy
from cluster.plan.places import Node, Places, find_places
from cluster.plan.plan import Plan
from cluster.plan.reserving import PAUSE_S, Reserving, Step
from cluster.plan.shortfall import Free, check_memory, describe_room, refuse_room
from cluster.waiting import Note
from protocol.errors import UserError
from protocol.roles import Player

LOOK_S = 0.1  # between two looks at groups that are asked for; each is a small call to Ray's control store
PARTS = "parts"  # the placement group of everything but the learners' ranks

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a run holds of the cluster.

    Attributes:
        parts: the placement group of everything but the learners' ranks, in the order of `Placement.bundles`.
        learners: placeholders for each learner group's ranks; `take_nodes` gives one back.
        places: the node of every part.
        home: Ray's id of the driver's node.
    """

    parts: PlacementGroup
    learners: Mapping[Player, PlacementGroup]
    places: Places
    home: str

    def give_back(self) -> None:
        """Frees all of it. What was given back before is gone already."""
        give_back([self.parts, *self.learners.values()])


async def reserve(plan: Plan, local: bool, note: Note) -> Reservation:
    """Waits for room for every part of a run, up to `run.placement_s`.

    Args:
        local: Ray is this run's own, on one machine.
        note: takes how far it is.

    Raises:
        UserError: there is no room in time, too little memory, or a run of this name is on the cluster. Nothing is held then.
    """
    await _wait_for_name(plan, note)
    clock = asyncio.get_running_loop().time
    began = clock()
    reserving = Reserving(1 + len(plan.placement.learners), plan.placement_s, began)
    while True:
        groups = request(plan)
        try:
            step = await _look_until_settled(plan, groups, reserving, local, note)
            if step is Step.DONE:
                if not local:
                    check_memory(plan.demand, measure_free(local))
                learners = {player: groups[player] for player in plan.placement.learners}
                home = ray.get_runtime_context().get_node_id()
                return Reservation(groups[PARTS], learners, find_all_places(plan, groups), home)
        except BaseException:
            give_back(groups.values())
            raise
        give_back(groups.values())
        if step is Step.GIVE_UP:
            raise refuse_room(plan.demand, measure_free(local), clock() - began)
        log.info("some of the run's room was free, and not all: given back, asked for again")
        await asyncio.sleep(random.uniform(*PAUSE_S))


def request(plan: Plan) -> dict[str, PlacementGroup]:
    """Asks for every placement group of a run: the parts', under the run's name, and each learner group's, by player."""
    groups: dict[str, PlacementGroup] = {}
    try:
        # The learners first: a group that must be on one node is the hardest to find room for.
        sizes = [size for _, size in _living_nodes()]
        for player, ranks in plan.placement.learners.items():
            groups[player] = placement_group([b.resources() for b in ranks], strategy=choose_strategy(ranks, sizes))
        bundles = [bundle.resources() for bundle in plan.placement.bundles]
        groups[PARTS] = placement_group(bundles, strategy="PACK", name=plan.name)
    except Exception:
        give_back(groups.values())
        if is_name_used(plan.name):  # another driver was quicker: only one group may have a name
            raise _name_is_used(plan) from None
        raise
    return groups


async def _look_until_settled(
    plan: Plan, groups: Mapping[str, PlacementGroup], reserving: Reserving, local: bool, note: Note
) -> Step:
    clock, next_note_s = asyncio.get_running_loop().time, 0.0
    while True:
        placed = sum(placement_group_table(group).get("state") == "CREATED" for group in groups.values())
        if (step := reserving.look(placed, clock())) is not Step.WAIT:
            return step
        if clock() >= next_note_s:
            note(describe_room(plan.demand, measure_free(local)))
            next_note_s = clock() + 1.0
        await asyncio.sleep(LOOK_S)


def find_all_places(plan: Plan, groups: Mapping[str, PlacementGroup]) -> Places:
    """The nodes of the parts of groups that are placed."""
    addresses = {str(node["NodeID"]): str(node["NodeManagerAddress"]) for node in ray.nodes()}
    bundles: dict[str, tuple[Bundle, ...]] = {PARTS: plan.placement.bundles}
    bundles |= {str(player): ranks for player, ranks in plan.placement.learners.items()}
    places: dict[str, Node] = {}
    for key, group in groups.items():
        node_ids = placement_group_table(group)["bundles_to_node_id"]
        places |= find_places(bundles[key], node_ids, addresses)
    return Places(places)


def take_nodes(group: PlacementGroup) -> tuple[str, ...]:
    """Gives a learner group's placeholder back.

    Returns:
        The id of each bundle's node; nothing where it was given back before, or lost a node.
    """
    table: dict[str, Any] = placement_group_table(group)
    remove_placement_group(group)
    if table.get("state") != "CREATED":
        return ()
    node_ids: dict[int, str] = table["bundles_to_node_id"]
    return tuple(node_ids[k] for k in sorted(node_ids))


def give_back(groups: Any) -> None:
    """Frees placement groups."""
    for group in groups:
        remove_placement_group(group)


def measure_free(local: bool) -> Free:
    """What Ray has to give now."""
    import psutil

    free = ray.available_resources()
    memory = free.get("memory", 0.0)  # Ray knows of a container's limit, psutil of what others use
    if local:
        memory = min(memory, psutil.virtual_memory().available)
    where = "this machine" if local else "the cluster"
    return Free(free.get("CPU", 0.0), free.get("GPU", 0.0), memory / 2**30, where)


def _living_nodes() -> Sequence[tuple[str, NodeSize]]:
    """Ids and sizes."""
    return [
        (node["NodeID"], NodeSize(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)))
        for node in ray.nodes()
        if node["Alive"]
    ]


def is_name_used(name: str) -> bool:
    """Whether a run of that name is on the cluster: its parts, or its wait for room."""
    if any(actor.startswith(f"{name}/") for actor in ray.util.list_named_actors()):
        return True
    try:
        group = get_placement_group(name)
    except ValueError:  # there is none, and there was none
        return False
    return placement_group_table(group).get("state") not in (None, "REMOVED")


async def _wait_for_name(plan: Plan, note: Note) -> None:
    """A run that is resumed waits until Ray has ended the parts of the driver before, which died a moment ago.

    Raises:
        UserError: a run of that name is on the cluster, and stays.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + (plan.placement_s if plan.resumed else 0.0)
    while is_name_used(plan.name):
        if clock() >= deadline:
            raise _name_is_used(plan)
        note(f"the parts of {plan.name} before this are still ending")
        await asyncio.sleep(LOOK_S)


def _name_is_used(plan: Plan) -> UserError:
    return UserError(
        f"run.name: {plan.name} is the name of a run that is on this cluster now; give this one another run.name, or wait until "
        "that one has ended"
    )
