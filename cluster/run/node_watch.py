"""Tells which nodes were lost while a run goes on, and which parts were on them. It ends nothing and restarts nothing.

Where a part is, it says itself (`processes/ROLE.json`), after each restart anew.
"""

from collections.abc import Callable, Collection, Mapping

import ray
import structlog

from cluster.observe.stacks import list_processes
from cluster.plan.places import Node
from cluster.rundir import RunDir

Say = Callable[[str], None]

log = structlog.get_logger(__name__)


class NodeWatch:
    """See the module's docstring.

    Args:
        say: is told of each lost node, once.
    """

    def __init__(self, run_dir: RunDir, say: Say) -> None:
        self._run_dir, self._say = run_dir, say
        self._parts: dict[Node, set[str]] = {}

    def look(self) -> None:
        """Asks Ray which nodes live. Blocks for a small call and a few small files."""
        living = {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}
        self.note({p.role: Node(p.node_id, p.node) for p in list_processes(self._run_dir.processes)}, living)

    def note(self, where: Mapping[str, Node], living: Collection[str]) -> None:
        """Tells what is lost.

        Args:
            where: the node of each part, by role.
            living: ids of the nodes that live.
        """
        for role, node in where.items():
            if node.id in living:
                self._parts.setdefault(node, set()).add(role)
                for other, roles in self._parts.items():
                    if other != node:
                        roles.discard(role)
        for node in [node for node in self._parts if node.id not in living]:
            lost = sorted(self._parts.pop(node))
            if lost:
                log.error("a node is lost", on_node=node.address, node_id=node.id, parts=lost)
                self._say(f"node {node.address} is lost, with {', '.join(lost)}")
