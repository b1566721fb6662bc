"""Reverb's table in memory, first in, first out, each item sampled once: one client inserts rows while another reads them."""

import json
import sys
import threading
import time
from typing import Any

import numpy as np
import reverb
from rows import row_of


def arrays(row: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        "prompt": np.array(row["prompt"], np.int32),
        "ids": np.array(row["ids"], np.int32),
        "logprobs": np.array(row["logprobs"], np.float32),
        "reward": np.array([8.0, 2.0], np.float32),
        "version": np.array(0, np.int32),
        "text": np.frombuffer("".join(row["texts"]).encode(), np.uint8),
    }


def main() -> None:
    tokens, count, batch = (int(a) for a in sys.argv[1:4])
    rows = [row_of(k, tokens) for k in range(count)]
    table = reverb.Table(
        name="rows",
        sampler=reverb.selectors.Fifo(),
        remover=reverb.selectors.Fifo(),
        max_size=count,
        max_times_sampled=1,
        rate_limiter=reverb.rate_limiters.MinSize(1),
    )
    server = reverb.Server(tables=[table])
    client = reverb.Client(f"localhost:{server.port}")
    done = count // batch * batch

    def write() -> None:
        with client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for k, row in enumerate(rows[:done]):
                writer.append(arrays(row))
                writer.create_item("rows", 1.0, {name: column[-1:] for name, column in writer.history.items()})
                if k % batch == batch - 1:
                    writer.flush()

    began = time.perf_counter()
    writer = threading.Thread(target=write)
    writer.start()
    sampler = iter(client.sample("rows", num_samples=done))
    for _ in range(done):
        next(sampler)
    writer.join()
    print(json.dumps({"rows_s": done / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
