"""Connecting to a running Ray, or starting one on this machine and taking it down again with everything under it.

Invariant: when `ray_session` ends, however it ends, no process that this driver caused is left. It owns no actor.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import psutil
import structlog

from cluster.calls import NAMESPACE
from protocol.errors import UserError

LEAVE_S = 15.0  # a process gets this long to go by itself before it is killed
OBJECT_STORE_BYTES = 512 * 2**20  # weights of one version, a few batches; ample for the sandbox

log = structlog.get_logger(__name__)


class Interrupted(KeyboardInterrupt):
    """The user asked the run to end (SIGINT or SIGTERM). Like its base it passes through `except Exception` and asyncio."""


@dataclass(frozen=True)
class Session:
    """Where Ray is."""

    local: bool
    dashboard_url: str
    metrics_url: str


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Turns the first SIGINT or SIGTERM into `Interrupted`, so that `finally` blocks run; later ones are ignored meanwhile.

    Enter it (again) after `ray.init`, which installs a handler for SIGTERM of its own.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        for s in (signal.SIGINT, signal.SIGTERM):
            signal.signal(s, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

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


def _to_log(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    log.warning("ray says", lines=[str(line).strip() for line in data.get("lines", [])])


@contextlib.contextmanager
def ray_session() -> Iterator[Session]:
    """Ray for the length of a run.

    With RAY_ADDRESS set (as in a submitted job) the running cluster is used and left running; otherwise a local one is
    started with its dashboard, which Ray Train needs (STACK.md), and ended with all its processes.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS")
    common: dict[str, Any] = {
        "log_to_driver": False,
        "configure_logging": True,
        "logging_level": "ERROR",
        "namespace": NAMESPACE,
    }
    me = psutil.Process()
    try:
        _connect(ray, address, common)
        url = ray._private.worker.get_dashboard_url() or ""
        yield Session(local=not address, dashboard_url=f"http://{url}" if url else "", metrics_url=_metrics_url(ray))
    finally:
        for s in (signal.SIGINT, signal.SIGTERM):  # nothing may cut the teardown short; `interrupts` restores them
            signal.signal(s, signal.SIG_IGN)
        descendants = me.children(recursive=True)
        ray.shutdown()
        if not address:
            _end(descendants)


def _connect(ray: Any, address: str | None, common: dict[str, Any]) -> None:
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, ValueError, RuntimeError) as e:
            reason = str(e).splitlines()[0]
            raise UserError(f"RAY_ADDRESS: no Ray answers at {address} ({reason}); correct it, or unset it") from None
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault(
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0"
        )  # one machine is never drained; two processes less
        ray.init(address="local", include_dashboard=True, object_store_memory=OBJECT_STORE_BYTES, **common)
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
