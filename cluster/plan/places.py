"""On which node each part of a run was placed when it started, and what is lost with a node. Pure.

Where a part is now, after restarts, its log and its entry under `processes/` say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.plan.placement import Bundle


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster: Ray's id, and the address that its dashboard shows."""

    id: str
    address: str


@dataclass(frozen=True, slots=True)
class Places:
    """The node of each part, by role."""

    of: Mapping[str, Node] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Those that hold a part, in the order of their addresses."""
        return tuple(sorted(set(self.of.values()), key=lambda node: (node.address, node.id)))

    def as_json(self) -> dict[str, str]:
        """The address of each part's node, by role, as `plan.json` has it."""
        return {role: node.address for role, node in self.of.items()}

    def describe(self) -> str:
        """Which node holds how many of which parts, in a line."""
        return "; ".join(f"{node.address}: {', '.join(count_kinds(self.on(node.id)))}" for node in self.nodes)

    def on(self, node_id: str) -> tuple[str, ...]:
        """The roles on a node."""
        return tuple(role for role, node in self.of.items() if node.id == node_id)


def find_places(
    bundles: Sequence[Bundle], node_ids: Mapping[int, str], addresses: Mapping[str, str]
) -> dict[str, Node]:
    """The nodes of one placement group's parts.

    Args:
        node_ids: of each bundle, by its index.
        addresses: of the nodes, by id; one that is not among them has just gone.
    """
    return {bundle.role: Node(node_ids[k], addresses.get(node_ids[k], "unknown")) for k, bundle in enumerate(bundles)}


def count_kinds(roles: Sequence[str]) -> list[str]:
    """Parts by kind: `2 generation-defender`, and the name alone where there is one of a kind (`replay-0`)."""
    by_kind: dict[str, list[str]] = {}
    for role in roles:
        by_kind.setdefault(role.rpartition("-")[0], []).append(role)
    return [mine[0] if len(mine) == 1 else f"{len(mine)} {kind}" for kind, mine in by_kind.items()]
