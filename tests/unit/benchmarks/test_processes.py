"""Which process of a Ray session is which, and who limits whom."""

import multiprocessing
import os
import time

import pytest

from tests.benchmarks.processes import Snapshot, Spent, Used, cores_by_role, limit_of, role_of, snapshot, spent_between

RAY = "/v/lib/python3.11/site-packages/ray"


@pytest.mark.parametrize(
    ("name", "command", "role"),
    [
        ("raylet", [f"{RAY}/core/src/ray/raylet/raylet", "--raylet_socket_name=x"], "raylet"),
        ("gcs_server", [f"{RAY}/core/src/ray/gcs/gcs_server", "--log_dir=/tmp"], "gcs_server"),
        ("python", ["python", "-u", f"{RAY}/dashboard/dashboard.py", "--host=127.0.0.1"], "dashboard"),
        ("python", ["python", "-u", f"{RAY}/dashboard/agent.py", "--node-ip-address=1"], "agents"),
        ("python", ["python", "-u", f"{RAY}/_private/runtime_env/agent/main.py"], "agents"),
        ("python", ["python", "-u", f"{RAY}/_private/log_monitor.py"], "log monitor"),
        ("ray::IDLE", ["ray::IDLE", "", ""], "idle workers"),
        ("ray::StubHost", ["ray::StubHost.exchange", ""], "StubHost"),
        ("ray::Replay", ["ray::Replay", ""], "Replay"),
        ("postgres", ["postgres", "-D", "x"], "postgres"),
        ("kernel", [], "kernel"),
    ],
)
def test_a_process_is_known_by_its_command_line(name: str, command: list[str], role: str) -> None:
    assert role_of(name, command) == role


def test_what_was_spent_is_by_process_and_a_new_one_counts_whole() -> None:
    before = Snapshot(10.0, {(1, 0.0): Used("driver", 5.0), (2, 0.0): Used("Replay", 1.0), (3, 0.0): Used("gone", 9.0)})
    after = Snapshot(
        14.0, {(1, 0.0): Used("driver", 6.0), (2, 0.0): Used("Replay", 4.0), (2, 12.0): Used("Replay", 2.0)}
    )
    spent = spent_between(before, after)
    assert spent == [Spent("Replay", 0.75), Spent("Replay", 0.5), Spent("driver", 0.25)]
    assert cores_by_role(spent) == {"Replay": 1.25, "driver": 0.25}


def test_the_limit_is_the_machine_or_a_process_that_fills_a_core_or_none() -> None:
    assert limit_of([Spent("a", 0.95), Spent("b", 0.9)], cores=2).startswith("the machine: 1.85 of 2")
    assert limit_of([Spent("a", 0.95), Spent("b", 0.2)], cores=4).startswith("a: 0.95")
    assert limit_of([Spent("a", 0.5), Spent("b", 0.2)], cores=4).startswith("no process: 0.70 of 4")


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_snapshot_sees_this_process_and_its_children() -> None:
    before = snapshot({})
    child = multiprocessing.get_context("fork").Process(target=_burn, args=(60.0,), daemon=True)
    child.start()
    assert child.pid is not None
    try:
        deadline = time.monotonic() + 30
        found: dict[str, float] = {}
        while found.get("burner", 0.0) < 0.2 and time.monotonic() < deadline:
            time.sleep(0.1)
            after = snapshot({child.pid: "burner"})
            found = {s.role: s.cores * (after.at_s - before.at_s) for s in spent_between(before, after)}
    finally:
        child.kill()
        child.join()
    assert found["burner"] >= 0.2
    assert [key for key in before.used if key[0] == os.getpid()]
    assert "driver" in found
