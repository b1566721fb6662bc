"""A step's rows lie once in Ray's object store: every rank reads them there, and a copy is nowhere made."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from cluster.replay.client import BatchClient
from tests.integration.cluster.test_replay_actor import start
from tests.integration.ray_actors import Actors
from tests.unit.cluster.replay.rules.test_facts import record


def buffers(column: pa.ChunkedArray) -> Iterator[pa.Buffer]:
    for chunk in column.chunks:
        yield from (buffer for buffer in chunk.buffers() if buffer is not None and buffer.size)


def shared_memory() -> list[range]:
    """The addresses at which this process maps Ray's object store."""
    maps = re.findall(r"^(\w+)-(\w+) .*plasma", Path("/proc/self/maps").read_text(), re.MULTILINE)
    return [range(int(first, 16), int(last, 16)) for first, last in maps]


@pytest.mark.timeout(120)
def test_every_rank_reads_a_steps_rows_in_the_object_store(actors: Actors, tmp_path: Path) -> None:
    handle = start(actors, tmp_path)

    def lease() -> Any:
        while (rows := BatchClient(handle).lease("defender", 0, 0, 4, 5.0)) is None:
            pass
        return rows

    deals = ray.get(handle.deal.remote("w", 4, 5.0))
    ray.get(handle.finish.remote("w", [record(deal.game_id) for deal in deals]))
    one, two = lease(), lease()
    assert one.equals(two) and one.num_rows == 8
    store = shared_memory()
    assert store
    for name in one.schema.names:
        places = [[buffer.address for buffer in buffers(table[name])] for table in (one, two)]
        assert places[0] == places[1] and places[0], name
        assert all(any(place in memory for memory in store) for place in places[0]), name

    os.kill(ray.get(handle.pid.remote()), signal.SIGKILL)  # its owner is gone: the next incarnation puts it there again
    again = lease()
    assert again.equals(one)
