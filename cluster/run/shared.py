"""Whether every node sees the run directory: checked before the first engine starts, and before anything of the run is written.

Segments, checkpoints, logs and exports are written by whatever node a part is on, and read on another after a restart. A path that
is there on each node, and is another folder on each, would lose all of it in silence: so a node must read what the driver wrote
there a moment ago, and the driver what the node wrote.
"""

import asyncio
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.plan.places import Node
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.files import sync_path, write_file

NODE_S = 120.0  # for all nodes together: each starts a process, and may have to unpack the job's package first

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node said. `problem`: why the folder is not shared with it, in words; "" where it is."""

    problem: str


def look_from_node(probe: str, token: str, node_id: str) -> Seen:
    """Reads the driver's file on this node, and leaves one of its own."""
    folder = Path(probe)
    try:
        if (folder / "driver").read_text() != token:
            return Seen("another folder of that name is there")
        write_file(folder / node_id, token)
    except FileNotFoundError:
        return Seen("what the driver writes there does not appear")
    except OSError as error:
        return Seen(f"it cannot be used there: {error.strerror or type(error).__name__}")
    return Seen("")


def list_other_nodes() -> list[Node]:
    """The living nodes that a part may be started on, now or after a loss; without the driver's own."""
    here = ray.get_runtime_context().get_node_id()
    return [
        Node(node["NodeID"], node["NodeManagerAddress"])
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != here and node["Resources"].get("CPU", 0.0) > 0
    ]


async def check_shared(run_dir: RunDir) -> None:
    """Leaves nothing behind, not even folders that were not there.

    Raises:
        UserError: a node does not see the folder that the run directory is in, or does not answer; or the driver cannot write
            there.
    """
    nodes = await asyncio.to_thread(list_other_nodes)
    if not nodes:
        return
    parent, token = run_dir.path.parent, secrets.token_hex(8)
    made = _first_missing(parent)
    probe = parent / f".{run_dir.path.name}.{token}.tmp"
    try:
        try:
            probe.mkdir(parents=True)
            write_file(probe / "driver", token)
            sync_path(parent)
        except OSError as error:
            raise UserError(
                f"run.dir: {parent} cannot be written ({error.strerror}); set run.dir to a place that can"
            ) from None
        refuse_unshared(parent, await _ask_all(nodes, probe, token))
    finally:
        shutil.rmtree(probe if made is None else made, ignore_errors=True)


def refuse_unshared(parent: Path, problems: Mapping[str, str]) -> None:
    """Raises `UserError` if there are problems. `problems`: in words, by the node's address; "" is none."""
    bad = {address: problem for address, problem in problems.items() if problem}
    if not bad:
        return
    told = "; ".join(f"node {address}: {problem}" for address, problem in list(bad.items())[:3])
    more = f"; and {len(bad) - 3} more nodes" if len(bad) > 3 else ""
    raise UserError(
        f"run.dir: {parent} is not shared by all nodes ({told}{more}); set run.dir to a folder on a file system that every node "
        "mounts at this path"
    )


async def _ask_all(nodes: list[Node], probe: Path, token: str) -> dict[str, str]:
    problems = await asyncio.gather(*(_ask(node, probe, token) for node in nodes))
    return {node.address: problem for node, problem in zip(nodes, problems, strict=True)}


async def _ask(node: Node, probe: Path, token: str) -> str:
    bound = NodeAffinitySchedulingStrategy(node.id, soft=False)
    asked = ray.remote(look_from_node).options(num_cpus=0, max_retries=1, scheduling_strategy=bound)
    try:
        async with asyncio.timeout(NODE_S):
            seen: Seen = await asked.remote(str(probe), token, node.id)
    except TimeoutError:
        return f"it did not answer within {NODE_S:.0f} s"
    except ray.exceptions.RayError as error:
        log.error("a node could not be asked for the run directory", on_node=node.address, exc_info=error)
        return f"it could not be asked ({type(error).__name__})"
    if seen.problem:
        return seen.problem
    return "" if (probe / node.id).is_file() else "what it writes there does not appear to the driver"


def _first_missing(folder: Path) -> Path | None:
    """The topmost folder that `mkdir(parents=True)` would make; None if it is there."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None
