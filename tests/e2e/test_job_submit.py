"""`ray job submit` against a running Ray, as on a cluster: the job uses that Ray, and leaves it running."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from cluster.sandbox import ensure_sandbox
from tests.e2e.runs import ROOT, check_books, check_kept, leases, settings, summary_of
from tests.net import free_port

BIN = Path(sys.executable).parent
TOKEN = secrets.token_hex(32)  # Ray asks a client on the network for one
AUTH = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def version(url: str) -> int:
    """The status of the dashboard's answer; raises `OSError` while there is none."""
    request = urllib.request.Request(f"{url}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        status: int = answer.status
        return status


def answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        return version(url) == 200
    return False


@pytest.fixture
def head(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A Ray head of its own; gives the dashboard's address."""
    port, dashboard = free_port(), free_port()
    session = Path("/tmp") / f"advgame-ray-{os.getpid()}"  # sockets need a short path
    options = [f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={session}", "--num-cpus=2"]
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0", **AUTH}
    memory = ["--object-store-memory=300000000", "--disable-usage-stats", "--block"]
    process = subprocess.Popen(
        [BIN / "ray", "start", "--head", *options, *memory],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 200
        while not answers(url):
            assert process.poll() is None, "ray start ended"
            assert time.monotonic() < deadline, "no dashboard in 200 s"
            time.sleep(0.5)
        yield url
    finally:
        # Killed: asked to end, it waits half a minute for its own processes.
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        process.kill()
        process.wait(60)
        shutil.rmtree(session, ignore_errors=True)


@pytest.mark.timeout(900)
def test_a_submitted_job_runs_on_the_cluster_and_leaves_it_running(head: str, tmp_path: Path) -> None:
    ensure_sandbox()
    env = {**os.environ, "RAY_ADDRESS": head, **AUTH}
    entry = ["python", "-m", "cluster", "train", "deploy/recipes/sandbox.yaml"]
    short = settings(tmp_path, "job", **{"run.steps": 3, "seeds.heldout": "null"})
    job = subprocess.run(
        [
            BIN / "ray",
            "job",
            "submit",
            "--working-dir",
            ".",
            "--",
            *entry,
            *short,
        ],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert job.returncode == 0, job.stdout[-4000:] + job.stderr[-2000:]
    summary = summary_of(tmp_path / "job")
    assert summary["status"] == "finished"
    check_books(summary)
    assert version(head) == 200


@pytest.mark.slow  # two to four minutes: CI has no time left
@pytest.mark.timeout(1200)
def test_a_job_that_is_stopped_saves_what_its_learners_took(head: str, tmp_path: Path) -> None:
    ensure_sandbox()
    env = {**os.environ, "RAY_ADDRESS": head, **AUTH}
    short = settings(tmp_path, "job", **{"run.steps": 200, "seeds.heldout": "null"})
    every = [f"--set=learners.{player}.checkpoint_every=150" for player in ("attacker", "defender")]
    entry = ["python", "-m", "cluster", "train", "deploy/recipes/sandbox.yaml", *short, *every]
    options = ["--no-wait", "--submission-id=stopped", "--runtime-env=deploy/runtime-env.yaml", "--working-dir=."]

    def ray_job(*args: str) -> str:
        done = subprocess.run(
            [BIN / "ray", "job", *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout

    ray_job("submit", *options, "--", *entry)
    run, deadline = tmp_path / "job", time.monotonic() + 400
    while {("attacker", 3), ("defender", 3)} - set(dict(leases(run))):
        assert time.monotonic() < deadline, ray_job("logs", "stopped")[-4000:]
        time.sleep(0.5)
    ray_job("stop", "stopped")
    summary = summary_of(run)
    assert summary["status"] == "interrupted", ray_job("logs", "stopped")[-4000:]
    check_books(summary)
    check_kept(run, summary)
