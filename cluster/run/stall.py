"""When nothing moves: every process's stacks and every node's GPU use into `stall-TIME/`, before the run is ended.

Each node looks at its own processes (`cluster.observe.stacks`): the driver's in the driver, another in a Ray task that is bound to
it. All of it has one deadline, for a run must end even if a node does not answer; what is missing then is said in the role's file.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.observe.stacks import Process, describe_gpus, dump_here, list_processes
from cluster.rundir import RunDir
from protocol.files import make_folder, write_file

DUMP_S = 20.0  # for all nodes together
TASKS_S = 5.0  # of it, for an actor to say where its tasks wait; one that hangs does not
WRITE_S = 2.0  # of it, kept for looking the processes up and writing

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NodeDump:
    """What one node said.

    Attributes:
        stacks: by role.
        gpus: their use, in words.
    """

    stacks: Mapping[str, str]
    gpus: str


def dump_node(processes: Sequence[Process], limit_s: float) -> NodeDump:
    """The stacks of these processes, which are on this node, and its GPUs' use."""
    return NodeDump(dump_here(processes, limit_s), describe_gpus(min(limit_s, 5.0)))


async def dump_stall(run_dir: RunDir, actors: Mapping[str, Any], limit_s: float = DUMP_S) -> Path:
    """Writes the folder, whole, and gives it.

    Args:
        actors: handles by role, of the run's observed actors; asked where their tasks wait.

    Raises:
        OSError: it cannot be written.
        TimeoutError: not even the list of processes could be read, or the folder be written, in time.
    """
    began, now = asyncio.get_running_loop().time(), datetime.now(UTC)
    async with asyncio.timeout(limit_s):
        processes = await asyncio.to_thread(list_processes, run_dir.processes)
        left_s = limit_s - (asyncio.get_running_loop().time() - began) - WRITE_S
        stacks, tasks = await asyncio.gather(_ask_nodes(processes, left_s), _ask_tasks(actors, min(TASKS_S, left_s)))
        folder = run_dir.path / f"stall-{now:%Y%m%dT%H%M%SZ}"
        await asyncio.to_thread(_write, folder, report(processes, stacks, tasks, left_s))
    return folder


def report(
    processes: Sequence[Process], nodes: Mapping[str, NodeDump], tasks: Mapping[str, str], limit_s: float
) -> dict[str, str]:
    """The files' texts by name: one of each role, and one of each node's GPUs.

    Args:
        nodes: what each node said, by Ray's id; one that is missing did not answer.
        tasks: where each actor's tasks wait.
        limit_s: that the nodes had.
    """
    files: dict[str, str] = {}
    names = {process.node_id: process.node for process in processes}
    for process in processes:
        said = nodes.get(process.node_id)
        stacks = f"no stacks: node {process.node} did not answer within {limit_s:.0f} s\n"
        if said is not None:
            stacks = said.stacks.get(process.role, "no stacks: its node does not know it\n")
        waits = tasks.get(process.role)
        head = f"{process.role}, process {process.pid} on node {process.node}\n\n"
        parts = [] if waits is None else [f"== where its tasks wait ==\n{waits}\n\n"]
        files[f"{process.role}.txt"] = head + "".join(parts) + stacks
    for node_id, name in names.items():
        said = nodes.get(node_id)
        files[f"gpu-{name}-{node_id[:6]}.txt"] = "not told: the node did not answer\n" if said is None else said.gpus
    return files


async def _ask_nodes(processes: Sequence[Process], limit_s: float) -> dict[str, NodeDump]:
    """Of each node its processes' stacks; without those that do not answer in time."""
    by_node: dict[str, list[Process]] = defaultdict(list)
    for process in processes:
        by_node[process.node_id].append(process)
    here = ray.get_runtime_context().get_node_id()
    remote = ray.remote(dump_node)
    asked: dict[str, Awaitable[NodeDump]] = {}
    for node, mine in by_node.items():
        if node == here:
            asked[node] = asyncio.to_thread(dump_node, mine, limit_s)
            continue
        bound = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[node] = _wait_for(
            remote.options(num_cpus=0, max_retries=0, scheduling_strategy=bound).remote(mine, limit_s)
        )
    answers = await asyncio.gather(*(_in_time(one, limit_s + 1.0) for one in asked.values()))
    return {node: answer for node, answer in zip(asked, answers, strict=True) if isinstance(answer, NodeDump)}


async def _ask_tasks(actors: Mapping[str, Any], limit_s: float) -> dict[str, str]:
    asked = [_in_time(_wait_for(actor.describe_tasks.remote()), limit_s) for actor in actors.values()]
    answers = await asyncio.gather(*asked)
    return {
        role: answer if isinstance(answer, str) else f"not told: {_why(answer, limit_s)}"
        for role, answer in zip(actors, answers, strict=True)
    }


async def _in_time(answer: Awaitable[Any], limit_s: float) -> Any:
    """The answer, or the error that there was instead."""
    try:
        async with asyncio.timeout(limit_s):
            return await answer
    except (TimeoutError, ray.exceptions.RayError) as error:
        log.warning("no answer for the stall's folder", error=type(error).__name__)
        return error


async def _wait_for(ref: Any) -> Any:
    return await ref


def _why(error: object, limit_s: float) -> str:
    return (
        f"its event loop did not answer within {limit_s:.0f} s"
        if isinstance(error, TimeoutError)
        else type(error).__name__
    )


def _write(folder: Path, files: Mapping[str, str]) -> None:
    with make_folder(folder) as draft:
        for name, text in files.items():
            write_file(draft / name, text)
