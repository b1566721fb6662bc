"""Serves a run directory's newest values to Prometheus, on this machine only, until it is interrupted. It writes nothing."""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from cluster.inputs.home import expand_home
from cluster.observe.export.collector import RunCollector
from cluster.observe.export.read import RunFiles
from cluster.rundir import RunDir
from protocol.errors import UserError

HOST = "127.0.0.1"  # there is no authentication: whoever may read the run directory is here already


@contextmanager
def serve_metrics(run: Path, port: int, say: Callable[[str], None]) -> Iterator[str]:
    """Serves while the block runs; gives the address.

    Args:
        run: a directory under runs/; it may be running.
        port: 0: any free one.
        say: told of files that cannot be read.

    Raises:
        UserError: there is no such run, or the port cannot be had.
    """
    run_dir = RunDir(expand_home(run).resolve())
    if not run_dir.recipe.is_file():
        raise UserError(
            f"metrics: {run_dir.path} is no run (it has no recipe.yaml); give the path of a directory under runs/"
        )
    registry = CollectorRegistry()
    registry.register(RunCollector(run_dir.path.name, RunFiles(run_dir, say).read))
    try:
        server, _ = start_http_server(port, HOST, registry)
    except OSError as e:
        why = "is taken" if e.errno == errno.EADDRINUSE else f"cannot be had ({e.strerror})"
        raise UserError(f"--port: {port} {why} on {HOST}; pick another one, or 0 for any that is free") from None
    try:
        yield f"http://{HOST}:{server.server_port}/metrics"
    finally:
        # The server looks twice a second whether it is to end; nobody waits for that.
        threading.Thread(target=_close, args=(server,), daemon=True).start()


def _close(server: WSGIServer) -> None:
    server.shutdown()
    server.server_close()
