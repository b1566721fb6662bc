"""Ray nodes in network namespaces, and jobs that are submitted to them as a user would."""

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.nodes.network import Network
from tests.paths import ROOT

BIN = Path(sys.executable).parent
START_S = 200.0
STORE_BYTES = 300_000_000
# Logical CPUs: one for each engine, the judge and each rank, so that three on a node make two nodes of any run.
SIZES = {
    "generation.cpus_per_worker": 1.0,
    "judge.cpus_per_worker": 1.0,
    "learners.attacker.cpus_per_rank": 1.0,
    "learners.defender.cpus_per_rank": 1.0,
    "seeds.heldout": "null",
    "rollout.workers": 1,
}


class RayNodes:
    """A Ray cluster: its head is node 1. `with RayNodes(network) as nodes: ...`; the network ends its processes."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._token = secrets.token_hex(32)
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Of Ray's own processes and of who talks to them."""
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token, "RAY_USAGE_STATS_ENABLED": "0"}
        return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **auth}

    @property
    def url(self) -> str:
        """The dashboard's address."""
        return f"http://{self.network.address(1)}:8265"

    def add(self, cpus: int, hide: Path | None = None) -> int:
        """Starts a node and waits until the cluster knows it; its number.

        Args:
            cpus: in Ray's units; the machine's are shared by all.
            hide: a folder that it does not share with the others.
        """
        k = self.network.add()
        address, folder = self.network.address(k), self.network.folder / str(k)
        folder.mkdir()
        where = ["--head", "--port=6379", f"--dashboard-host={address}", "--dashboard-port=8265"]
        if k > 1:
            where = [f"--address={self.network.address(1)}:6379"]
        # A folder of its own: nodes that share one unpack a job's package over each other.
        options = [f"--node-ip-address={address}", f"--temp-dir={folder}", f"--num-cpus={cpus}"]
        memory = [f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats", "--block"]
        with (self.network.folder / f"ray-{k}.log").open("wb") as out:
            self._started[k] = subprocess.Popen(
                [*self.network.enter(k, hide), BIN / "ray", "start", *where, *options, *memory],
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self.lives(k):
            said = (self.network.folder / f"ray-{k}.log").read_text(errors="replace")[-2000:]
            assert self._started[k].poll() is None, f"ray start of node {k} ended:\n{said}"
            assert time.monotonic() < deadline, f"node {k} is not there after {START_S} s:\n{said}"
            time.sleep(0.5)
        return k

    def lives(self, k: int) -> bool:
        """Whether the cluster counts a node among the living."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return self._states()[self.network.address(k)] == "ALIVE"
        return False

    def _states(self) -> dict[str, str]:
        request = urllib.request.Request(
            f"{self.url}/api/v0/nodes?limit=100", headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
        return {node["node_ip"]: node["state"] for node in nodes}

    def number_of(self, address: str) -> int:
        """The node with that address."""
        return next(k for k in self._started if self.network.address(k) == address)

    def submit(self, run_dir: Path, name: str, recipe: str = "sandbox.yaml", **more: Any) -> "Job":
        """`ray job submit` of a small run of the sandbox; `more` are settings."""
        from tests.e2e.runs import settings

        arguments = settings(run_dir, name, **{**SIZES, **more})
        return Job(self, ["python", "-m", "cluster", "train", f"deploy/recipes/{recipe}", *arguments], run_dir / name)

    def resume(self, run: Path) -> "Job":
        """`ray job submit` that goes on with a run."""
        return Job(self, ["python", "-m", "cluster", "train", f"--resume={run}"], run)


class Job:
    """A submitted job, watched from outside."""

    def __init__(self, nodes: RayNodes, entry: list[str], run: Path) -> None:
        self.run, self.id = run, f"job-{secrets.token_hex(4)}"
        self._nodes, self._lines = nodes, []
        submit = ["job", "submit", f"--submission-id={self.id}", "--working-dir=.", "--", *entry]
        self._process = subprocess.Popen(
            [BIN / "ray", *submit],
            cwd=ROOT,
            env={**nodes.environment, "RAY_ADDRESS": nodes.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    _lines: list[str]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_for(self, pattern: str, limit_s: float) -> re.Match[str]:
        """The first match in the output; fails if the job ends or the time is up before it."""
        deadline = time.monotonic() + limit_s
        while (found := re.search(pattern, self.output)) is None:
            assert self._process.poll() is None, f"ended early:\n{self.output}"
            assert time.monotonic() < deadline, f"no {pattern!r} within {limit_s} s:\n{self.output}"
            time.sleep(0.2)
        return found

    def end(self, limit_s: float) -> bool:
        """Waits for the end; whether Ray says that the job succeeded."""
        code = self._process.wait(limit_s)
        self._reader.join(10)
        return code == 0

    def refused(self, limit_s: float) -> str:
        """Waits for a job that ends as one does whose user made a mistake: status 2, no traceback. Its output."""
        assert not self.end(limit_s), self.output
        assert "exit code 2" in self.output and "Traceback" not in self.output, self.output
        return self.output

    def stop(self) -> None:
        """`ray job stop`, without waiting."""
        subprocess.run(
            [BIN / "ray", "job", "stop", "--no-wait", self.id],
            env={**self._nodes.environment, "RAY_ADDRESS": self._nodes.url},
            capture_output=True,
            check=True,
            timeout=60,
        )

    def places(self, limit_s: float = 120.0) -> Mapping[str, str]:
        """The address of each part's node, as `plan.json` has it as soon as the run has its room."""
        deadline, plan = time.monotonic() + limit_s, self.run / "plan.json"
        while not plan.is_file():
            assert self._process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.2)
        found: dict[str, str] = json.loads(plan.read_text())["nodes"]
        return found
