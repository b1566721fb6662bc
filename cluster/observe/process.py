"""What every process of a run does first, actor, learner rank and driver alike: its log, its metrics, and stacks that can be had.

`observed` wraps an actor's class, a learner rank and the driver call `observe_process`. There is no other way in, so that no
process has the one and lacks the other.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster.observe.logs import Origin, configure_logs, this_node
from cluster.observe.meter import RayMeter
from cluster.observe.stacks import register_process
from cluster.observe.tasks import describe_tasks
from cluster.plan.placement import rank_role
from cluster.rundir import RunDir
from protocol import metrics as m
from protocol.meter import install, meter
from protocol.recipe import LogStyle
from protocol.roles import Player


@dataclass(frozen=True, slots=True)
class Observing:
    """How the processes of one run are observed. Picklable: it travels to them.

    Attributes:
        run: its name.
        run_dir: which every node sees.
        logs: how log lines look.
        metrics: whether there are series at Ray's endpoint.
    """

    run: str
    run_dir: RunDir
    logs: LogStyle = "plain"
    metrics: bool = True


def observe_process(how: Observing, role: str, rank: int | None = None, children: bool = True) -> None:
    """From now on this process is observed. Ray runs.

    Args:
        role: of the process.
        rank: of a learner group.
        children: see `stacks.Process`.
    """
    import ray

    node = this_node()
    configure_logs(how.run_dir.path, Origin(how.run, role, rank, node), how.logs)
    if how.metrics:
        install(RayMeter(how.run, role))
        meter().set(m.PROCESS_START, time.time())
    register_process(how.run_dir.processes, role, ray.get_runtime_context().get_node_id(), node, children)


def observe_rank(how: Observing, player: Player, rank: int) -> None:
    """`observe_process` of one learner rank."""
    observe_process(how, rank_role(player, rank), rank)


def observed(cls: type, how: Observing, role: str, serves: str) -> type:
    """The asynchronous actor class `cls`, observed. Its constructor takes what `cls` takes.

    Args:
        serves: what it is for, in a few words; Ray's dashboard shows it beside the role.
    """
    init: Callable[..., None] = cls.__init__  # type: ignore[misc]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        observe_process(how, role)
        init(self, *args, **kwargs)

    def __repr__(_self: Any) -> str:
        return f"{role}: {serves}"

    async def tasks(_self: Any) -> str:
        return describe_tasks()

    added = {"__init__": __init__, "__repr__": __repr__, "describe_tasks": tasks, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), added)
