"""Connecting to a running Ray, or starting one on this machine and taking it down again with everything under it.

Invariant: when `ray_session` ends, however it ends, no process that this driver caused is left. It owns no actor.
"""

import contextlib
import functools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import structlog

from cluster.calls import NAMESPACE
from cluster.run.ray_place import check_socket_folder, read_address, short_tmpdir, socket_folder
from cluster.waiting import Wait
from protocol.errors import UserError, first_words

BIN = Path(sys.executable).parent  # not resolved: a virtual environment's python is a link to another one
LEAVE_S = 15.0  # a process gets this long to go by itself before it is killed
OBJECT_STORE_BYTES = 512 * 2**20  # weights of one version, a few batches; ample for the sandbox

_added: set[str] = set()  # folders that we put on the PATH, where the person has none

log = structlog.get_logger(__name__)
hurry = threading.Event()  # a person pressed Ctrl-C again: nothing is to be waited for any more


class Interrupted(KeyboardInterrupt):
    """The user asked the run to end (SIGINT or SIGTERM). Like its base it passes through `except Exception` and asyncio."""


@dataclass(frozen=True)
class Session:
    """Where Ray is.

    Attributes:
        token: the command that prints the token which the dashboard asks for; "" if it asks for none.
        folder: of Ray's session, on this node.
    """

    local: bool
    dashboard_url: str
    metrics_url: str
    folder: Path
    token: str = ""


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Turns the first SIGINT or SIGTERM into `Interrupted`, so that `finally` blocks run; later ones do not cut those short.

    A later SIGINT, which only a person sends, sets `hurry`.

    Enter it (again) after `ray.init`, which installs a handler for SIGTERM of its own.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, lambda *_: hurry.set())
        raise Interrupted(signal.Signals(number).name)

    hurry.clear()
    old = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def _metrics_url(ray: Any) -> str:
    for node in ray.nodes():
        if node.get("Alive") and node.get("MetricsExportPort"):
            return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    return ""


def _token_command(ray: Any) -> str:
    """How a person gets the token, from where they are."""
    raylet = ray._raylet
    if raylet.get_authentication_mode() != raylet.AuthenticationMode.TOKEN:
        return ""
    return f"{show_program('ray', Path.cwd(), os.environ.get('PATH', ''))} get-auth-token"


def show_program(name: str, folder: Path, path: str) -> str:
    """How a person who is in `folder` with that PATH calls a program of this environment: by its name if that finds it."""
    beside = BIN / name
    if shutil.which(name, path=os.pathsep.join(p for p in path.split(os.pathsep) if p not in _added)) == str(beside):
        return name
    return str(beside.relative_to(folder) if beside.is_relative_to(folder) else beside)


def _allow_profiling() -> None:
    """Has the local dashboard show stacks and flame graphs: Ray has them off, and looks for py-spy on its PATH only.

    Only behind a token: who may profile may read code paths and load the machine.
    """
    if (
        os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    ):  # unset: Ray asks for tokens on a local cluster of its own
        os.environ.setdefault("RAY_DASHBOARD_ENABLE_PROFILING", "1")
    path = os.environ.get("PATH", "")
    if str(BIN) not in path.split(os.pathsep):
        _added.add(str(BIN))
        os.environ["PATH"] = f"{path}{os.pathsep}{BIN}"


def _to_log(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    log.warning("ray says", lines=[str(line).strip() for line in data.get("lines", [])])


@contextlib.contextmanager
def ray_session(wait: Wait, metadata: Mapping[str, str] | None = None) -> Iterator[Session]:
    """Ray for the length of a run.

    With RAY_ADDRESS set (as in a submitted job) the running cluster is used and left running; otherwise a local one is
    started with its dashboard, which Ray Train needs (STACK.md), and ended with all its processes.

    Args:
        wait: tells of it meanwhile.
        metadata: of the job, as the dashboard shows it.

    Raises:
        UserError: no Ray is where RAY_ADDRESS says, or none can be started here.
    """
    address = read_address()
    if address is None:
        check_socket_folder()
        if (short := short_tmpdir()) is not None:
            os.environ["TMPDIR"], tempfile.tempdir = short, None  # None: looked up again
    import ray
    from ray.job_config import JobConfig

    common: dict[str, Any] = {
        "log_to_driver": False,
        "configure_logging": True,
        "logging_level": "ERROR",
        "namespace": NAMESPACE,
        "job_config": JobConfig(metadata=dict(metadata or {})),
    }
    me = psutil.Process()
    try:
        what, usual = ("Ray at RAY_ADDRESS", "") if address else ("Ray to start on this machine", "usually 5 to 10 s")
        with wait(what, usual):
            _connect(ray, address, common)
        url = ray._private.worker.get_dashboard_url() or ""
        dashboard = f"http://{url}" if url else ""
        folder = Path(ray._private.worker._global_node.get_session_dir_path())
        yield Session(not address, dashboard, _metrics_url(ray), folder, _token_command(ray))
    finally:
        for s in (signal.SIGINT, signal.SIGTERM):  # nothing may cut the teardown short; `interrupts` restores them
            signal.signal(s, signal.SIG_IGN)
        descendants = me.children(recursive=True)
        ray.shutdown()
        if not address:
            _end(descendants)


@contextlib.contextmanager
def _agent_on_a_free_port() -> Iterator[None]:
    """Has a node's agent listen where there is room.

    Its port is fixed (52365) and `ray.init` takes no other: where another Ray on the machine has it, the agent goes on without
    HTTP, and the dashboard shows no stacks and takes no jobs.
    """
    from ray._private import parameter

    usual = parameter.RayParams
    parameter.RayParams = functools.partial(usual, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        parameter.RayParams = usual


def _connect(ray: Any, address: str | None, common: dict[str, Any]) -> None:
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, ValueError, RuntimeError) as e:
            raise UserError(
                f"RAY_ADDRESS: no Ray answers at {address} ({first_words(e)}); correct it, or unset it"
            ) from None
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault(
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0"
        )  # one machine is never drained; two processes less
        _allow_profiling()
        try:
            with _agent_on_a_free_port():
                ray.init(address="local", include_dashboard=True, object_store_memory=OBJECT_STORE_BYTES, **common)
        except OSError as e:
            folder, name = socket_folder()
            if not str(e.filename or "").startswith(folder):
                raise
            raise UserError(
                f"{name}: Ray cannot use {folder} ({first_words(e)}); set RAY_TMPDIR to a folder that can be written, as in "
                "RAY_TMPDIR=/tmp"
            ) from None
    # What Ray would print between our lines (worker counts, retried tasks) goes to the driver's log.
    ray._private.worker.print_to_stdstream = _to_log


def _end(processes: list[psutil.Process]) -> None:
    """Waits for processes to go, then kills what stayed, and says so."""
    deadline = time.monotonic() + LEAVE_S
    alive = processes
    while alive and time.monotonic() < deadline:
        _, alive = psutil.wait_procs(alive, timeout=0.5)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            log.warning("killing a process that outstayed its run", pid=process.pid, name=process.name())
            process.kill()
    psutil.wait_procs(alive, timeout=5.0)
