"""Ray's dashboard as a person meets it: the printed command gives its token; parts, job and stacks are there.

The session is started as `train` does it, in a process without an activated environment.
"""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

from tests.paths import ROOT

SESSION = """
import sys
from pathlib import Path

import ray

from cluster.observe.process import Observing, observed
from cluster.run.session import interrupts, ray_session
from cluster.rundir import RunDir
from cluster.waiting import wait_in_lines

class JudgeWorker:
    async def ready(self):
        return True

how = Observing("demo", RunDir(Path(sys.argv[1])))
wait = wait_in_lines(lambda text: print(text, file=sys.stderr))
with ray_session(wait, {"job_name": "advgame demo", "run": "demo"}) as session, interrupts():
    part = ray.remote(observed(JudgeWorker, how, "judge-0", "judge, serves rules-1"))
    judge = part.options(name="demo/judge-0", num_cpus=0, max_concurrency=10).remote()
    ray.get(judge.ready.remote(), timeout=60)
    print(session.dashboard_url, flush=True)
    print(session.token, flush=True)
    sys.stdin.read()
"""
Get = Callable[[str], Any]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A person's who has no token yet and no environment on the PATH."""
    home = tmp_path_factory.mktemp("home")
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != beside)
    left = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "VIRTUAL_ENV"))}
    return left | {"HOME": str(home), "PATH": path, "RAY_worker_niceness": "0"}


@pytest.fixture(scope="module")
def usual_port() -> Iterator[None]:
    """Holds the port that agents listen on if nobody says another, as a second Ray on this machine does."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # another Ray has it
            held.bind(("", DEFAULT_DASHBOARD_AGENT_LISTEN_PORT))
            held.listen()
        yield


@pytest.fixture(scope="module")
def get(usual_port: None, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Get]:
    """Asks the dashboard of a running session."""
    run = tmp_path_factory.mktemp("demo")
    (run / "logs").mkdir()
    command = [sys.executable, "-c", SESSION, str(run)]
    program = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout is not None and program.stdin is not None
    try:
        url, shown = program.stdout.readline().strip(), program.stdout.readline().strip()
        said = subprocess.run(shlex.split(shown), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stderr

        def ask(path: str) -> Any:
            request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {said.stdout}"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode()

        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/api/jobs/", timeout=30)
        assert refused.value.code == 401, "without the token nothing is told"
        yield ask
    finally:
        program.stdin.close()
        program.wait(60)


def actor(get: Get) -> dict[str, Any]:
    """The one actor of ours, when the dashboard knows that it is alive."""
    deadline = time.monotonic() + 20
    while True:
        found: list[dict[str, Any]] = list(json.loads(get("/logical/actors"))["data"]["actors"].values())
        if (ours := [one for one in found if one["name"] == "demo/judge-0"]) and ours[0]["state"] == "ALIVE":
            return ours[0]
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


@pytest.mark.timeout(180)
def test_a_part_is_listed_with_its_name_and_what_it_serves(get: Get) -> None:
    found = actor(get)
    assert (found["actorClass"], found["reprName"]) == ("JudgeWorker", "judge-0: judge, serves rules-1")


@pytest.mark.timeout(180)
def test_the_job_has_the_runs_name(get: Get) -> None:
    (job,) = json.loads(get("/api/jobs/"))
    assert (job["metadata"]["job_name"], job["metadata"]["run"]) == ("advgame demo", "demo")


@pytest.mark.timeout(180)
def test_the_dashboard_gives_a_parts_stack(get: Get) -> None:
    """py-spy is found beside the interpreter, although it is on nobody's PATH."""
    found, deadline = actor(get), time.monotonic() + 60  # a node's agent comes up some seconds after its node
    while True:
        try:
            stack = get(f"/worker/traceback?pid={found['pid']}&node_id={found['address']['nodeId']}")
            break
        except urllib.error.HTTPError as error:
            why = error.read().decode()
        if "ermission" in why:
            pytest.skip("this machine does not let py-spy trace")
        assert "Failed to get agent address" in why and time.monotonic() < deadline, why
        time.sleep(0.5)
    assert "MainThread" in stack and "ray::JudgeWorker" in stack
