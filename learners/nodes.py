"""On which nodes Ray Train starts a group's ranks: those that its placeholder was on, for as long as all of them live.

Train asks for the same nodes at each restart. One that is lost would be waited for until Train gives up: then it is any node but
the lost ones, as few of them as possible.
"""

from collections.abc import Collection, Sequence
from typing import Any

NODE_ID = "ray.io/node-id"  # the label that every node of Ray 2.60 has


def ask_for(nodes: Sequence[str]) -> list[dict[str, str]] | None:
    """Train's label selector for ranks on these nodes, one for each; None: any nodes."""
    return [{NODE_ID: node} for node in nodes] or None


def avoid_lost(nodes: Sequence[str], living: Collection[str]) -> dict[str, str] | None:
    """The selector of every rank after a loss; None: none of `nodes` is lost."""
    lost = sorted(set(nodes) - set(living))
    return {NODE_ID: f"!in({','.join(lost)})"} if lost else None


def make_callback(nodes: Sequence[str]) -> Any:
    """What Train's controller asks before each start of the group."""
    import ray
    from ray.train.v2._internal.execution.callback import ControllerCallback

    class AvoidLostNodes(ControllerCallback):  # type: ignore[misc,unused-ignore]
        def on_controller_start_worker_group(self, *, scaling_config: Any, num_workers: int) -> dict[str, str] | None:
            return avoid_lost(nodes, [node["NodeID"] for node in ray.nodes() if node["Alive"]])

    return AvoidLostNodes()
