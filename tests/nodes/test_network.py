"""The test cluster itself, without a Ray: nodes see each other, one can be cut off or lack a folder, and nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.nodes.network import Network, list_left, pids_in
from tests.paths import ROOT

LISTEN = "import socket; s = socket.create_server(('', 7000)); print('up', flush=True); s.accept(); s.accept()"
REACH = "import socket, sys; socket.create_connection((sys.argv[1], 7000), 2.0)"


def reaches(network: Network, k: int, address: str) -> bool:
    done = subprocess.run([*network.enter(k), sys.executable, "-c", REACH, address], capture_output=True, check=False)
    return done.returncode == 0


def test_nodes_reach_each_other_until_a_link_is_cut_and_the_processes_live_on(network: Network) -> None:
    one, two = network.add(), network.add()
    assert network.address(one) != network.address(two)
    listening = subprocess.Popen([*network.enter(two), sys.executable, "-c", LISTEN], stdout=subprocess.PIPE)
    assert listening.stdout is not None and listening.stdout.readline() == b"up\n"
    assert reaches(network, one, network.address(two))
    network.cut(two)
    assert not reaches(network, one, network.address(two))
    assert listening.poll() is None, "it lives on"
    network.mend(two)
    assert reaches(network, one, network.address(two))
    listening.wait(20)


def test_a_killed_node_has_no_process_left(network: Network) -> None:
    k = network.add()
    sleeping = subprocess.Popen([*network.enter(k), "sleep", "600"])
    while not pids_in(network.space(k)):
        time.sleep(0.05)
    network.kill(k)
    assert sleeping.wait(10) == -signal.SIGKILL and not pids_in(network.space(k))


def test_a_node_without_the_shared_folder_has_an_empty_one_of_its_own(network: Network, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("")
    look = ["ls", str(tmp_path)]
    k = network.add()
    assert subprocess.check_output([*network.enter(k), *look]) == b"seen\n"
    assert subprocess.check_output([*network.enter(k, hide=tmp_path), *look]) == b""
    subprocess.run([*network.enter(k, hide=tmp_path), "touch", str(tmp_path / "its own")], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


TEST = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
from tests.nodes.network import Network
with Network() as network:
    k = network.add()
    subprocess.Popen([*network.enter(k), "sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"], start_new_session=True)
    print(network.tag, flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_of_a_test_that_is_interrupted_or_killed() -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        test = subprocess.Popen(
            [sys.executable, "-c", TEST], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert test.stdout is not None
        tag = test.stdout.readline().decode().strip()
        assert len(list_left(tag)) >= 3, "namespace, bridge, folder"
        os.kill(test.pid, number)
        test.wait(60)
        deadline = time.monotonic() + 30
        while (left := list_left(tag)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left, number
