"""Nodes for the tests of this folder; skipped in words where the machine does not let us make them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes.cluster import RayNodes
from tests.nodes.network import Network, why_not


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They want the machine for themselves; the hook sees the tests of all folders."""
    mine = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    hindrance = why_not() if mine else ""
    for item in mine:
        item.add_marker(pytest.mark.alone)
        if hindrance:
            item.add_marker(pytest.mark.skip(reason=hindrance))


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as made:
        yield made


@pytest.fixture
def nodes(network: Network) -> RayNodes:
    """A cluster without nodes; `network` ends it."""
    from cluster.sandbox import ensure_sandbox

    ensure_sandbox()  # once, not in the job against its deadline
    return RayNodes(network)
