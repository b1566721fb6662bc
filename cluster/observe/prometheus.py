"""A Prometheus beside a local run: Debian's program on the list of targets that Ray keeps, with the alert rules of the checkout.

It listens on the loopback address alone and ends with the block that started it; if its parent is killed, the kernel ends it. Its
process group is its own: a Ctrl-C, which ends the run in its order, does not end it first.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import structlog
import yaml

from protocol.errors import UserError
from protocol.files import write_file

CONFIG = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yml"
TARGETS = "prom_metrics_service_discovery.json"  # Ray's name of the list, in its session's folder
ALERT_PAGES = ("/alerts", "/classic/alerts")  # Debian's build has only the second
HOST = "127.0.0.1"
READY_S = 30.0
VERSION_S = 20.0  # a second on an idle machine, its program read from a slow disk included
LEAVE_S = 10.0  # it writes its newest samples first
ANSWER_S = 5.0
EVERY_S = 2.0  # a run of the sandbox takes minutes: its graphs need more points than production's

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Where the program is, and the port that it is to listen on."""

    program: str
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    def find_alerts_page(self) -> str:
        """The address of its page of alerts; of the program itself, if it has none that we know. It must be up."""
        pages = (f"{self.url}{path}" for path in ALERT_PAGES)
        return next((page for page in pages if _status(page) == 200), self.url)


def find_prometheus(port: int) -> Prometheus:
    """Checks what can be checked before anything starts, and before there is a run's directory, whose name is taken then.

    Raises:
        UserError: there is no such program, it does not run here, or the port cannot be had.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise UserError(
            "watch: no prometheus on the PATH; install it (Debian: apt-get install --no-install-recommends prometheus), "
            "or run `train` without it"
        )
    _check_port(port)
    _check_runs(program)
    return Prometheus(program, port)


def _check_port(port: int) -> None:
    """Takes the port for a moment: whoever has it may speak no HTTP, or answer nobody."""
    try:
        HTTPServer((HOST, port), BaseHTTPRequestHandler).server_close()
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise UserError(f"--port: something listens on {HOST}:{port} already; give another one") from None
        raise UserError(f"--port: {HOST}:{port} cannot be had ({e.strerror}); give another one") from None


def _check_runs(program: str) -> None:
    """A program for another machine, or without its libraries, is told now."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=VERSION_S, check=False)
        why = f"ends with status {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"does not answer within {VERSION_S:.0f} s"
    except OSError as e:
        why = f"cannot be started ({e.strerror})"
    if why:
        raise UserError(f"watch: `{program} --version` {why}; install it anew, or run `train` without it")


def tell_ray(prometheus: Prometheus, grafana: str | None) -> None:
    """Sets what Ray's dashboard reads when it starts, for its Metrics page. Its graphs are Grafana's: without one it shows none.

    Args:
        grafana: a Grafana's address, for the dashboard and for the browser alike; None: what the environment says.
    """
    os.environ["RAY_PROMETHEUS_HOST"] = prometheus.url
    if grafana is not None:
        os.environ["RAY_GRAFANA_HOST"] = os.environ["RAY_GRAFANA_IFRAME_HOST"] = grafana


def make_config(base: str, rules: Path, targets: Path, every_s: float) -> str:
    """The configuration that the checkout ships, with its paths made absolute and the targets of one Ray session. Pure.

    Args:
        base: the shipped one's text. Its rule files are relative to `rules`.
        targets: the list of one Ray session.
    """
    config: dict[str, Any] = yaml.safe_load(base)
    every = f"{every_s:g}s"
    config["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    config["rule_files"] = [str(rules / name) for name in config["rule_files"]]
    for scrape in config["scrape_configs"]:
        for list_ in scrape["file_sd_configs"]:
            list_["files"], list_["refresh_interval"] = [str(targets)], every
    return yaml.safe_dump(config, sort_keys=False)


@contextlib.contextmanager
def run_prometheus(prometheus: Prometheus, session_dir: Path, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Prometheus for the length of the block.

    Args:
        session_dir: of the Ray session that it scrapes.
        folder: where its configuration, its data and its log go; made if it is not there.

    Raises:
        UserError: it did not start within `READY_S`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    write_file(config, make_config(CONFIG.read_text(), CONFIG.parent, session_dir / TARGETS, EVERY_S))
    command = [
        prometheus.program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{prometheus.port}",
        "--log.level=warn",
    ]
    guard = shutil.which("setpriv")  # util-linux
    with (folder / "prometheus.log").open("ab") as output:
        process = subprocess.Popen(
            [guard, "--pdeathsig", "TERM", *command] if guard else command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(prometheus, process, folder / "prometheus.log")
        yield process
    finally:
        end_process(process)


def end_process(process: "subprocess.Popen[bytes]") -> None:
    """Ends it in order; by force if it takes longer than `LEAVE_S`."""
    process.terminate()
    try:
        process.wait(LEAVE_S)
    except subprocess.TimeoutExpired:
        log.warning("killing a Prometheus that does not end", pid=process.pid)
        process.kill()
        process.wait(LEAVE_S)


def _wait_until_ready(prometheus: Prometheus, process: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        if _status(f"{prometheus.url}/-/ready") == 200:
            return
        time.sleep(0.1)
    lines = output.read_text(errors="replace").splitlines()
    why = (
        f"ended with status {process.returncode}" if process.poll() is not None else f"not ready within {READY_S:.0f} s"
    )
    raise UserError(
        f"watch: Prometheus did not start: {why} ({lines[-1] if lines else 'it said nothing'}); see {output}"
    )


def _status(url: str) -> int | None:
    """With which HTTP status something answers there; None if nothing does."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
