"""Whether what a run needs is there, and what to do if it is not. Pure: what there is comes in as numbers."""

from dataclasses import dataclass

from cluster.plan.demand import Demand
from protocol.errors import UserError


@dataclass(frozen=True, slots=True)
class Free:
    """What Ray has to give now, over all nodes; memory in GiB.

    `where` names it in messages: "this machine" or "the cluster".
    """

    cpus: float
    gpus: float
    memory_gib: float
    where: str


def check_room(demand: Demand, free: Free) -> None:
    """Raises `UserError` naming the first resource that is short, by how much, and what would help."""
    if demand.cpus > free.cpus + 1e-6:
        raise UserError(
            f"placement: the recipe needs {demand.cpus:g} CPUs at once, {free.where} has {free.cpus:g} free; "
            "lower cpus_per_worker, cpus_per_rank, workers or ranks, or free some"
        )
    if demand.gpus > free.gpus + 1e-6:
        raise UserError(
            f"placement: the recipe needs {demand.gpus:g} GPUs at once, {free.where} has {free.gpus:g} free; "
            "lower gpus_per_worker, gpus_per_rank, workers or ranks, or add some"
        )
    check_memory(demand, free)


def check_memory(demand: Demand, free: Free) -> None:
    """Raises `UserError` if there is too little memory. Ray reserves none of it, so it is not waited for."""
    if demand.memory_gib > free.memory_gib:
        raise UserError(
            f"placement: the recipe needs about {demand.memory_gib:g} GiB of memory, {free.where} has "
            f"{free.memory_gib:.1f} free; lower kv_cache_gib, workers or ranks, or free some"
        )


def describe_room(demand: Demand, free: Free) -> str:
    """What is asked for and what there is, while it is waited for."""
    gpus = f" and {demand.gpus:g} GPUs" if demand.gpus else ""
    has = f" and {free.gpus:g} GPUs" if demand.gpus else ""
    return f"{demand.cpus:g} CPUs{gpus} are needed, {free.where} has {free.cpus:g} CPUs{has} free"


def refuse_room(demand: Demand, free: Free, waited_s: float) -> UserError:
    """What a person is told after the wait: the resource that is short, or that no node has enough of it."""
    after = f" (waited {waited_s:.0f} s for it; run.placement_s)"
    try:
        check_room(demand, free)
    except UserError as short:
        return UserError(f"{short}{after}")
    return UserError(
        f"placement: {describe_room(demand, free)}, but not on nodes that can take the parts; lower gpus_per_worker, "
        f"tensor_parallel or cpus_per_rank, or add larger nodes{after}"
    )
